"""Logit-normal times of a rectified flow (Esser et al. 2024, eq. 19): logit(s) is N(mean, std^2)
where x_s = (1 - s) x_0 + s noise.

log-SNR, 2 log((1 - s) / s) = -2 logit(s), is then N(-2 mean, 4 std^2).
"""

import torch
from torch.distributions import Normal

from ddpm_lightning.times.log_snr_law import LogSNRLaw


class LogitNormal(LogSNRLaw):
    """A mean above 0 leans towards noise; the defaults are those of Stable Diffusion 3."""

    def __init__(self, mean: float = 0.0, std: float = 1.0, stratified: bool = True) -> None:
        super().__init__(stratified)
        if not std > 0:
            raise ValueError(f"std must be positive, got {std}; 1 is customary")
        self.mean, self.std = mean, std

    @property
    def law(self) -> Normal:
        return Normal(*torch.tensor([-2 * self.mean, 2 * self.std], dtype=torch.float64))
