"""Cosine schedule: the cumulative signal follows a squared cosine (Nichol & Dhariwal 2021, eq.
17).
"""

from torch import Tensor

from ddpm_lightning.noise.base import (
    NoiseSchedule,
    betas_from_cumulative,
    squared_cosine,
    unit_interval,
)


class CosineSchedule(NoiseSchedule):
    """abar_i = f_i / f_0, f_i = cos^2(((i/T + offset) / (1 + offset)) pi/2); beta clipped at
    max_beta.
    """

    def __init__(self, num_steps: int, offset: float, max_beta: float) -> None:
        super().__init__(num_steps)
        if offset < 0:
            raise ValueError(f"offset must be 0 or more, got {offset}; 0.008 is customary")
        self.offset, self.max_beta = offset, max_beta

    def betas(self) -> Tensor:
        curve = squared_cosine(unit_interval(self.num_steps), self.offset)
        return betas_from_cumulative(curve, self.max_beta)
