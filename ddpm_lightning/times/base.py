"""What time sampling is: from uniform draws to the times of a batch."""

from abc import ABC, abstractmethod

from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess


class TimeSampling(ABC):
    """Draws one time per clip.

    Args:
        stratified: one draw from each of as many equal slices of the law as the whole batch has
            samples, so that it always covers the law (low discrepancy, as in Kingma et al. 2021);
            else independent draws.
    """

    def __init__(self, stratified: bool = True) -> None:
        self.stratified = stratified

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
