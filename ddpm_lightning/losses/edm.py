"""EDM weighting (Karras et al. 2022, table 1): the target of `objective=karras`, weighed evenly.

A network that predicts the noise is trained at the noisiest levels alone, where its error counts
up to 2e5 times.
"""

from torch import Tensor

from ddpm_lightning.losses.base import WeightedLoss
from ddpm_lightning.statistics import DATA_STD


class EDMLoss(WeightedLoss):
    """Weighs by SNR + 1 / s_d^2, (s^2 + s_d^2) / (s s_d)^2 at the noise level s = sigma / alpha."""

    def weight(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp() + 1 / DATA_STD**2
