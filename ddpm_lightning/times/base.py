"""What time sampling is: times for a batch, drawn on the CPU from torch's global generator."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess


class TimeSampling(ABC):
    """Draws one time per clip.

    Args:
        stratified: one draw from each of B equal slices of the law, so that a batch always covers
            it (low discrepancy, as in Kingma et al. 2021); else independent draws.
    """

    def __init__(self, stratified: bool) -> None:
        self.stratified = stratified

    def draw(self, process: GaussianProcess, batch_size: int) -> Tensor:
        """(B,) times t > 0, down to the log-SNR floor."""
        fraction = torch.rand(batch_size, dtype=torch.float64)
        if self.stratified:
            fraction = (torch.arange(batch_size) + fraction) / batch_size
        return self.times(process, fraction)

    @abstractmethod
    def times(self, process: GaussianProcess, fraction: Tensor) -> Tensor:
        """The law's quantiles at fractions (B,) in [0, 1)."""
