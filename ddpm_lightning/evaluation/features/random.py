"""Random features: a convolutional network over space and time that nobody trained.

Its weights are He-normal from a seed, so two machines see the same. It stands between pixels and
trained networks: it sees texture and the direction of time, and knows nothing of natural images.
"""

import torch
from torch import Tensor, nn

from ddpm_lightning.evaluation.features.base import FeatureSeries

_WIDTHS = (32, 64, 128)


class RandomFeatures(FeatureSeries):
    """Three 3x3x3 convolutions, each halving height and width: 128 features a place.

    Grey clips are repeated to three colours.
    """

    name = "random"
    min_size = 8

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for num_in, num_out in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layer = nn.Conv3d(num_in, num_out, 3, stride=(1, 2, 2), padding=1, bias=False)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            layers += [layer, nn.ReLU()]
        self.network = nn.Sequential(*layers)

    def series(self, frames: Tensor) -> Tensor:
        colours = frames.expand(-1, 3, -1, -1, -1) * 2 - 1
        maps: Tensor = self.network.to(frames.device)(colours)
        return maps.flatten(3)
