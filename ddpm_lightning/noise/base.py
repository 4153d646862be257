"""What a noise schedule is: beta_t, t = 1..T, in float64. It knows nothing of any chain."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class NoiseSchedule(ABC):
    """Variances beta_t of the noise added at each of num_steps diffusion steps."""

    def __init__(self, num_steps: int) -> None:
        if num_steps < 1:
            raise ValueError(
                f"num_steps must be at least 1, got {num_steps}; set noise.num_steps=1000, say"
            )
        self.num_steps = num_steps

    @abstractmethod
    def betas(self) -> Tensor:
        """(T,) float64 in [0, 1); betas()[t - 1] is beta_t."""


def betas_from_cumulative(cumulative: Tensor, max_beta: float) -> Tensor:
    """beta_i = clip(1 - c_i / c_{i-1}, 0, max_beta) of a cumulative signal curve c_0 .. c_T,
    float64.

    max_beta must lie in (0, 1): at 1 a step would destroy its input and leave no chain to reverse.
    """
    if not 0 < max_beta < 1:
        raise ValueError(f"max_beta must lie in (0, 1), got {max_beta}; 0.9999 is customary")
    return (1 - cumulative[1:] / cumulative[:-1]).clamp(0, max_beta)


def unit_interval(num_steps: int) -> Tensor:
    """x_i = i / T for i = 0..T, float64."""
    return torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


def squared_cosine(x: Tensor, offset: float) -> Tensor:
    """cos^2(((x + s) / (1 + s)) pi / 2), divided by its value at 0; Nichol & Dhariwal 2021, eq.
    17.
    """
    curve = torch.cos((x + offset) / (1 + offset) * torch.pi / 2).square()
    return curve / curve[0]
