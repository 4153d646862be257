"""Uniform in t: every usable step of the chain equally often, down to the log-SNR floor."""

from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling


class UniformTime(TimeSampling):
    """t uniform over (0, T], or over the usable ones of 1..T."""

    def times(self, process: GaussianProcess, fraction: Tensor, floor: float) -> Tensor:
        return process.informative_time(fraction, floor)
