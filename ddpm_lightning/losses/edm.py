"""EDM weighting (Karras et al. 2022, table 1): the target of `objective=karras`, weighed evenly.

A network that predicts the noise is trained at the noisiest levels alone, where its error counts
up to 2e5 times.
"""

from torch import Tensor

from ddpm_lightning.losses.base import WeightedLoss


class EDMLoss(WeightedLoss):
    """Weighs by SNR + 1 / s_d^2, (s^2 + s_d^2) / (s s_d)^2 at the noise level s = sigma / alpha."""

    def __init__(self, data_std: float = 0.5) -> None:
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}; 0.5 suits natural clips")
        self.data_std = data_std

    def weight(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp() + 1 / self.data_std**2
