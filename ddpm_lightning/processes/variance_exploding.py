"""Variance-exploding process: noise is added to the data itself (Song et al. 2021, eq. 9).

    dx = sqrt(d sigma^2 / dt) dw,   alpha_t = 1,   x_t = x_0 + sigma_t noise

Its prior is N(0, sigma_T^2), with sigma_T = 80 under noise=karras: the process of Karras et al.
2022.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.continuous import ContinuousProcess


class VarianceExplodingProcess(ContinuousProcess):
    """Is the variance-preserving process over alpha_t: sigma_t is its sigma / alpha."""

    def marginals(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(log_alpha), torch.expm1(-2 * log_alpha)
