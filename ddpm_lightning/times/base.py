"""What time sampling is: from uniform draws to the times of a batch."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess


class Draws(Protocol):
    """The draws in [0, 1), float64, that belong to the samples of a batch."""

    def uniform(self) -> Tensor:
        """Return (B,) of times."""

    def more(self, count: int) -> Tensor:
        """Return (B, count) others."""


class Levels(NamedTuple):
    """Times and levels of a batch, (B,), or (B, F) where frames have their own.

    counted (B, F) says which frames are trained; None: all.
    """

    t: Tensor
    level: Level
    counted: Tensor | None = None

    def mark(self, losses: Tensor) -> Tensor:
        """Return the losses, (B,) or (B, F), with NaN for frames that do not count."""
        if self.counted is None:
            return losses
        return losses.where(self.counted.to(losses.device, non_blocking=True), float("nan"))

    def per_clip(self, losses: Tensor) -> Tensor:
        """Return the losses (B,): of frames the mean over those that count."""
        if losses.dim() < 2:
            return losses
        if self.counted is None:
            return losses.mean(1)
        counted = self.counted.to(losses.device, non_blocking=True)
        return losses.where(counted, 0).sum(1) / counted.sum(1)


class TimeSampling(ABC):
    """Draws one time per clip, or per frame.

    Args:
        stratified: one draw from each of as many equal slices of the law as the whole batch has
            samples, so that it always covers the law (low discrepancy, as in Kingma et al. 2021);
            else independent draws.
    """

    by_frame = False  # whether frames of a clip may have levels of their own

    def __init__(self, stratified: bool = True) -> None:
        self.stratified = stratified

    def levels(
        self,
        process: GaussianProcess,
        draws: Draws,
        place: Tensor,
        batch_size: int,
        floor: float,
        num_frames: int,
    ) -> Levels:
        """Return times and levels of clips of num_frames frames; see `draw` for the others."""
        t = self.draw(process, draws.uniform(), place, batch_size, floor)
        return Levels(t, process.level(t))

    def draw(
        self,
        process: GaussianProcess,
        uniform: Tensor,
        place: Tensor,
        batch_size: int,
        floor: float,
    ) -> Tensor:
        """Return times t > 0 (B,), down to the log-SNR floor.

        Args:
            uniform: (B,) independent draws in [0, 1), float64.
            place: (B,) of each in the whole batch, of which other devices may hold the rest.
            batch_size: of the whole batch.
            floor: of log-SNR, for the clips that are trained.
        """
        fraction = (place + uniform) / batch_size if self.stratified else uniform
        return self.times(process, fraction, floor)

    @abstractmethod
    def times(self, process: GaussianProcess, fraction: Tensor, floor: float) -> Tensor:
        """Return the quantiles of the law at fractions (B,) in [0, 1), down to the floor."""
