"""Karras grid (Karras et al. 2022, eq. 5): (sigma / alpha)^(1 / rho) falls evenly.

From the noisiest to the cleanest usable time; the last interval, to the data, is beyond it.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, levels, span


class KarrasGrid(Grid):
    """rho = 1 spreads the noise levels evenly, more puts more of them near the data."""

    def __init__(self, rho: float) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be positive, got {rho}; 7 is customary")
        self.rho = rho

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        # sigma / alpha = exp(-log-SNR / 2)
        ends = torch.tensor(levels(axis), dtype=torch.float64) / (-2 * self.rho)
        low, high = ends.exp()
        root = low + span(num_intervals) * (high - low)
        return axis.at_log_snr(-2 * self.rho * root.log())
