"""Laws of log-SNR: times that are drawn by a distribution over log-SNR, whatever the process.

The distribution is cut to the levels between the cleanest and the noisiest usable time; each is
taken at the usable time closest to it.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling


class LogSNRLaw(TimeSampling, ABC):
    """Draws log-SNR from `law`."""

    @property
    @abstractmethod
    def law(self) -> Distribution:
        """Return the distribution of log-SNR, before it is cut; its cdf and icdf are used."""

    def times(self, process: GaussianProcess, fraction: Tensor, floor: float) -> Tensor:
        axis = process.axis(floor)
        ends = axis.log_snr(torch.tensor([axis.first, axis.last], dtype=torch.float64))
        high, low = self.law.cdf(ends)
        level = self.law.icdf(high + fraction * (low - high))
        return axis.at_log_snr(level.clamp(ends[1], ends[0]))
