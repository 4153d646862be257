"""I3D (Carreira & Zisserman 2017), trained on Kinetics-400: the features of FVD.

The network is a TorchScript file of the user's, StyleGAN-V's `i3d_torchscript.pt`: of its logits
FVD is computed. No package holds it, so it is given by path and checksum.
"""

import os

import torch
from torch import Tensor

from ddpm_lightning.evaluation.features.base import Extractor, Features
from ddpm_lightning.evaluation.features.weights import read_checked


class I3D(Extractor):
    """400 features of a clip, those of FVD (temporal), and of its middle frame alone (spatial).

    Temporal features are those that publications compute FVD of, and see content, too. The spatial
    ones are of the same clip frozen at its middle frame. The network pools time eightfold and more,
    and gives nothing for 9 frames or fewer.
    Args:
        path: of the TorchScript file.
        sha256: of its content.
    Raises:
        ValueError: if there is no such file, or its checksum is another.
    """

    name = "i3d"
    min_frames = 10
    batch_size = 4  # at 224 x 224

    def __init__(self, path: str | os.PathLike[str], sha256: str) -> None:
        self.sha256 = sha256
        self.network = torch.jit.load(read_checked(path, sha256), map_location="cpu").eval()

    def extract(self, clips: Tensor) -> Features:
        frozen = clips[:, clips.shape[1] // 2, None].expand_as(clips)
        spatial, temporal = (self._logits(version) for version in (frozen, clips))
        return Features(spatial, temporal)

    def _logits(self, clips: Tensor) -> Tensor:
        frames = clips.movedim(-1, 1).expand(-1, 3, -1, -1, -1).float()  # 0 to 255
        network = self.network.to(clips.device)
        logits: Tensor = network(frames, rescale=True, resize=True, return_features=True)
        return logits
