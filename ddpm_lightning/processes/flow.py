"""Flow process: x_t lies on the straight line from x_0 to noise (Liu et al. 2023, rectified flow).

    x_t = alpha_t x_0 + sigma_t noise,   alpha_t + sigma_t = 1

Under noise=flow alpha_t = 1 - t / T and sigma_t = t / T. A sampler needs more than these marginals;
here x_t is the Markov diffusion that has them, as on every continuous process. The probability flow
of the marginals, dx / dt = E[noise - x_0 | x_t] / T under noise=flow, does not depend on that.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.continuous import ContinuousProcess


class FlowProcess(ContinuousProcess):
    """Is the variance-preserving process over alpha_t + sigma_t."""

    def marginals(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        variance = -torch.expm1(2 * log_alpha)
        total = log_alpha.exp() + variance.sqrt()
        return log_alpha - total.log(), variance / total.square()
