"""Hybrid blend: the monotone relative of the hybrid schedule.

Its log-SNR is, at every step, the mean of those of the two curves that `hybrid` interleaves.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import (
    NoiseSchedule,
    betas_from_log_snr,
    check_max_beta,
    check_offset,
    squared_cosine,
    unit_interval,
)
from ddpm_lightning.noise.hybrid import sinh_curve


class HybridBlendSchedule(NoiseSchedule):
    """log-SNR_i = (logit f_i + logit h_i) / 2, i = 1..T; beta clipped at max_beta."""

    def __init__(
        self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.9999
    ) -> None:
        super().__init__(num_steps)
        check_offset(offset)
        check_max_beta(max_beta)
        self.offset, self.max_beta = offset, max_beta

    def betas(self) -> Tensor:
        x = unit_interval(self.num_steps)
        curves = squared_cosine(x, self.offset), sinh_curve(x, self.offset)
        log_snr = sum(torch.logit(curve[1:]) for curve in curves) / 2
        return betas_from_log_snr(torch.as_tensor(log_snr), self.max_beta)
