"""Uniform in log-SNR (Lu et al. 2022, DPM-Solver): every interval removes the same share of noise.

From the noisiest to the cleanest usable time; the last interval, to the data, is beyond it.
"""

from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, levels, span


class UniformLogSNRGrid(Grid):
    """log-SNR falls evenly from time to time."""

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        high, low = levels(axis)
        return axis.at_log_snr(high + span(num_intervals) * (low - high))
