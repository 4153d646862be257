"""What an extractor is: clips (N, F, H, W, C) uint8 -> a pair of features, spatial and temporal.

Defines Extractor, the contract; and FeatureSeries, for extractors that map a clip to features over
time f_t. Of these, the spatial features are the mean over time and the temporal ones two summaries
of how f changes, under a root, for few clips move much and would decide a distance alone:

    spatial    mean_t f_t
    temporal   sqrt(the standard deviation of f_t over t), sqrt(mean_t |f_{t+1} - f_t|)

Distances and what they are computed for are not known here.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Features(NamedTuple):
    """Features of N clips, float64 on the CPU."""

    spatial: Tensor  # (N, d)
    temporal: Tensor  # (N, d')


class Extractor(ABC):
    """Maps clips to features; the same clip has the same features in any batch, to round-off.

    Attributes:
        name: the option's name.
        min_frames, min_size: the fewest frames and pixels a side that it takes.
        sha256: of the file of its weights; None where it has none.
    """

    name: str
    min_frames: int = 2
    min_size: int = 1
    sha256: str | None = None
    batch_size: int = 16  # clips at a time, which bounds the memory

    @torch.no_grad()
    def pair(self, clips: Tensor) -> Features:
        """Return both kinds of features of clips (N, F, H, W, C) uint8, on any device.

        Raises:
            ValueError: if the clips are too short or too small.
        """
        _, num_frames, height, width, _ = clips.shape
        if num_frames < self.min_frames:
            raise ValueError(
                f"the {self.name} features need clips of at least {self.min_frames} frames, got "
                f"{num_frames}; sample longer clips or choose other features"
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f"the {self.name} features need frames of at least {self.min_size} pixels a side, "
                f"got {height} x {width}; choose other features"
            )
        batches = [self.extract(batch) for batch in clips.split(self.batch_size)]
        spatial, temporal = (torch.cat(kind).double().cpu() for kind in zip(*batches, strict=True))
        return Features(spatial, temporal)

    @abstractmethod
    def extract(self, clips: Tensor) -> Features:
        """Return the pair of a batch of clips that were checked, in any float type."""


class FeatureSeries(Extractor):
    """An extractor whose clips have features over time at places of a frame."""

    @abstractmethod
    def series(self, frames: Tensor) -> Tensor:
        """Return features (N, d, F', places) of frames (N, C, F, H, W) float32 in [0, 1]."""

    def extract(self, clips: Tensor) -> Features:
        """Summarise the series over time at each place, then average over the places."""
        series = self.series(clips.movedim(-1, 1).float() / 255)
        deviation = series.std(2, correction=0)
        difference = series.diff(dim=2).abs().mean(2)
        temporal = torch.cat([deviation, difference], 1).mean(2).sqrt()
        return Features(series.mean((2, 3)), temporal)
