"""Log-normal noise levels (Karras et al. 2022, table 1): log(sigma / alpha) is N(mean, std^2).

log-SNR, -2 log(sigma / alpha), is then N(-2 mean, 4 std^2).
"""

import torch
from torch.distributions import Normal

from ddpm_lightning.times.log_snr_law import LogSNRLaw


class LogNormal(LogSNRLaw):
    """The defaults are P_mean and P_std of EDM; they suit data of std 1/2."""

    def __init__(self, mean: float = -1.2, std: float = 1.2, stratified: bool = True) -> None:
        super().__init__(stratified)
        if not std > 0:
            raise ValueError(f"std must be positive, got {std}; 1.2 is customary")
        self.mean, self.std = mean, std

    @property
    def law(self) -> Normal:
        return Normal(*torch.tensor([-2 * self.mean, 2 * self.std], dtype=torch.float64))
