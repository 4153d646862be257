"""Hybrid schedule: two cumulative curves, cosine and sinh, interleaved step by step.

With x = i / T and s the offset,

    f_i = cos^2(((x + s) / (1 + s)) pi/2),   h_i = sinh(sqrt((1 - x + s) / (1.3 + 1.5 s))),

both divided by their value at i = 0; abar_i is f_i for even i and h_i for odd i. All the noise
falls on every second step (the other betas are 0), and the signal that is left at T is far below
float32.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import (
    NoiseSchedule,
    betas_from_cumulative,
    squared_cosine,
    unit_interval,
)


class HybridSchedule(NoiseSchedule):
    """beta_i = clip(1 - abar_i / abar_{i-1}, 0, max_beta) of the interleaved curve."""

    def __init__(self, num_steps: int, offset: float, max_beta: float) -> None:
        super().__init__(num_steps)
        if offset < 0:
            raise ValueError(f"offset must be 0 or more, got {offset}; 0.008 is customary")
        self.offset, self.max_beta = offset, max_beta

    def betas(self) -> Tensor:
        x = unit_interval(self.num_steps)
        cosine = squared_cosine(x, self.offset)
        sinh = torch.sinh(((1 - x + self.offset) / (1.3 + 1.5 * self.offset)).sqrt())
        odd = torch.arange(self.num_steps + 1) % 2 == 1
        return betas_from_cumulative(torch.where(odd, sinh / sinh[0], cosine), self.max_beta)
