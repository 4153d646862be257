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
    check_max_beta,
    check_offset,
    squared_cosine,
    unit_interval,
)


class HybridSchedule(NoiseSchedule):
    """beta_i = clip(1 - abar_i / abar_{i-1}, 0, max_beta) of the interleaved curve."""

    def __init__(
        self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.9999
    ) -> None:
        super().__init__(num_steps)
        check_offset(offset)
        check_max_beta(max_beta)
        self.offset, self.max_beta = offset, max_beta

    def betas(self) -> Tensor:
        x = unit_interval(self.num_steps)
        odd = torch.arange(self.num_steps + 1) % 2 == 1
        curve = torch.where(odd, sinh_curve(x, self.offset), squared_cosine(x, self.offset))
        return betas_from_cumulative(curve, self.max_beta)


def sinh_curve(x: Tensor, offset: float) -> Tensor:
    """Return h at x in [0, 1], divided by its value at 0."""
    curve = torch.sinh(((1 - x + offset) / (1.3 + 1.5 * offset)).sqrt())
    return curve / curve[0]
