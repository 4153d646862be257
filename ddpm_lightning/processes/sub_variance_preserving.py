"""Sub-variance-preserving process (Song et al. 2021, eq. 12).

    dx = -beta(t) x / 2 dt + sqrt(beta(t) (1 - exp(-2 int_0^t beta))) dw
    alpha_t = exp(-1/2 int_0^t beta),   sigma_t = 1 - alpha_t^2

alpha is that of the variance-preserving process, sigma its square: under one schedule this process
is less noisy at every t.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.continuous import ContinuousProcess


class SubVariancePreservingProcess(ContinuousProcess):
    """Has the log-SNR 2 log(alpha_t / (1 - alpha_t^2))."""

    def marginals(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        return log_alpha, torch.expm1(2 * log_alpha).square()
