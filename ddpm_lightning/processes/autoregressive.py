"""AR(p) forward chains: x_t = sum_k w_{t,k} x_{t-k} + sqrt(beta_t) e_t; all before x_0 equal it.

The tables follow from the definition by recursion:

    alpha_t = sum_k w_{t,k} alpha_{t-k},                          alpha_0 = alpha_{-1} = .. = 1
    C[t, s] = sum_k w_{t,k} C[t-k, s]          (s < t),           C[0, .] = C[-1, .] = .. = 0
    C[t, t] = sum_k w_{t,k} C[t, t-k] + beta_t
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.base import GaussianProcess


class AutoregressiveProcess(GaussianProcess, ABC):
    """A chain that is fully described by its weights; a new one overrides `weights` alone."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        betas = schedule.betas()
        super().__init__(schedule, *_tables(self.weights((1 - betas).sqrt()), betas))

    @abstractmethod
    def weights(self, r: Tensor) -> Tensor:
        """w (T, p) from r_t = sqrt(1 - beta_t) (T,); column k - 1 multiplies x_{t-k}."""


def _tables(weights: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    num_steps, order = weights.shape
    past = order - 1  # entries before t = 0, all equal to x_0
    alpha = torch.ones(num_steps + order, dtype=torch.float64)
    covariance = torch.zeros(num_steps + order, num_steps + order, dtype=torch.float64)
    for t in range(1, num_steps + 1):
        i = t + past
        w = weights[t - 1].flip(0)  # oldest first, as in the slice i - order .. i - 1
        alpha[i] = w @ alpha[i - order : i]
        covariance[i, :i] = w @ covariance[i - order : i, :i]
        covariance[:i, i] = covariance[i, :i]
        covariance[i, i] = w @ covariance[i, i - order : i] + betas[t - 1]
    return alpha[past:], covariance[past:, past:].contiguous()
