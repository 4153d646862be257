"""Flow schedule: log-SNR of the straight line from data to noise (Liu et al. 2023, rectified flow).

With x = t / T, sigma_t / alpha_t = x / (1 - x): on model=flow alpha_t = 1 - x and sigma_t = x.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import (
    NoiseSchedule,
    betas_from_log_snr,
    check_max_beta,
    unit_interval,
)

LARGEST = 1 - 2.0**-53  # of x


class FlowSchedule(NoiseSchedule):
    """abar_t = (1 - x)^2 / ((1 - x)^2 + x^2); beta clipped at max_beta."""

    def __init__(self, num_steps: int = 1000, max_beta: float = 0.9999) -> None:
        super().__init__(num_steps)
        check_max_beta(max_beta)
        self.max_beta = max_beta

    def betas(self) -> Tensor:
        ratio = _ratio(unit_interval(self.num_steps)[1:])
        return betas_from_log_snr(-2 * ratio.log(), self.max_beta)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha of the curve itself, unclipped; it ends at round-off, not at 0."""
        return -torch.log1p(_ratio(t / self.num_steps).square()) / 2


def _ratio(x: Tensor) -> Tensor:
    x = x.clamp(max=LARGEST)
    return x / (1 - x)
