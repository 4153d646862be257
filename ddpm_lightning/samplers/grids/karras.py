"""Karras grid (Karras et al. 2022, eq. 5): (sigma / alpha)^(1 / rho) falls evenly.

From the noisiest to the cleanest usable time; the last interval, to the data, is beyond it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, levels, span


@dataclass(frozen=True)
class KarrasGrid(Grid):
    """Spaces noise levels evenly with rho = 1, and more densely near the data with a larger rho."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, got {self.rho}; 7 is customary")

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        # sigma / alpha = exp(-log-SNR / 2)
        ends = torch.tensor(levels(axis), dtype=torch.float64) / (-2 * self.rho)
        low, high = ends.exp()
        root = low + span(num_intervals) * (high - low)
        return axis.at_log_snr(-2 * self.rho * root.log())
