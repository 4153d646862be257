"""Sigmoid schedule: the cumulative signal falls along a logistic curve (Jabri et al. 2023, alg. 1).

abar(x) = (S(end) - S(start + x (end - start))) / (S(end) - S(start)),   S(u) = 1 / (1 +
exp(-u / temperature)),   x = t / T.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import (
    NoiseSchedule,
    betas_from_cumulative,
    check_max_beta,
    unit_interval,
)


class SigmoidSchedule(NoiseSchedule):
    """beta_t of the curve above, clipped at max_beta."""

    def __init__(
        self,
        num_steps: int = 1000,
        start: float = -3.0,
        end: float = 3.0,
        temperature: float = 1.0,
        max_beta: float = 0.9999,
    ) -> None:
        super().__init__(num_steps)
        if not start < end:
            raise ValueError(f"start must be less than end, got {start} and {end}; -3 and 3, say")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}; 1 is customary")
        check_max_beta(max_beta)
        self.start, self.end = start, end
        self.temperature, self.max_beta = temperature, max_beta

    def betas(self) -> Tensor:
        x = unit_interval(self.num_steps)
        curve = torch.sigmoid((self.start + x * (self.end - self.start)) / self.temperature)
        cumulative = (curve[-1] - curve) / (curve[-1] - curve[0])
        return betas_from_cumulative(cumulative, self.max_beta)
