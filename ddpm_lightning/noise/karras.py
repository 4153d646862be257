"""Karras schedule: sigma / alpha are the noise levels of Karras et al. 2022, eq. 5.

sigma_t / alpha_t = (sigma_min^(1/rho) + (t - 1) / (T - 1) (sigma_max^(1/rho) -
sigma_min^(1/rho)))^rho
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, betas_from_log_snr, check_max_beta


class KarrasSchedule(NoiseSchedule):
    """Raises sigma / alpha from sigma_min at t = 1 to sigma_max at t = T, on the standard chain."""

    def __init__(
        self,
        num_steps: int = 1000,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        max_beta: float = 0.9999,
    ) -> None:
        super().__init__(num_steps)
        if not 0 < sigma_min < sigma_max:
            raise ValueError(
                f"noise levels need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}; "
                "0.002 and 80 are customary"
            )
        if not rho > 0:
            raise ValueError(f"rho must be positive, got {rho}; 7 is customary")
        check_max_beta(max_beta)
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho
        self.max_beta = max_beta

    def betas(self) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        # counted down, so that a chain of one step has sigma_max
        levels = (
            torch.linspace(high, low, self.num_steps, dtype=torch.float64).pow(self.rho).flip(0)
        )
        return betas_from_log_snr(-2 * levels.log(), self.max_beta)
