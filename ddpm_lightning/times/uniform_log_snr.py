"""Uniform in log-SNR: the same law of noise levels for every process and schedule with equal ends.

The levels run from that of the cleanest usable time to the noisiest; each is taken at the usable
time closest to it.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling


class UniformLogSNR(TimeSampling):
    """log-SNR uniform between its ends."""

    def times(self, process: GaussianProcess, fraction: Tensor, floor: float) -> Tensor:
        axis = process.axis(floor)
        high, low = axis.log_snr(torch.tensor([axis.first, axis.last], dtype=torch.float64))
        return axis.at_log_snr(high + fraction * (low - high))
