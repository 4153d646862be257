"""Cosine schedule: the cumulative signal follows a squared cosine (Nichol & Dhariwal 2021, eq.
17).
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


class CosineSchedule(NoiseSchedule):
    """abar_i = f_i / f_0, f_i = cos^2(((i/T + offset) / (1 + offset)) pi/2); beta clipped at
    max_beta.
    """

    def __init__(
        self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.9999
    ) -> None:
        super().__init__(num_steps)
        check_offset(offset)
        check_max_beta(max_beta)
        self.offset, self.max_beta = offset, max_beta

    def betas(self) -> Tensor:
        curve = squared_cosine(unit_interval(self.num_steps), self.offset)
        return betas_from_cumulative(curve, self.max_beta)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha of the curve itself, unclipped; it ends at round-off, not at 0."""
        x = t / self.num_steps
        return (self._log_cosine(x) - self._log_cosine(torch.zeros_like(x))).clamp(max=0)

    def _log_cosine(self, x: Tensor) -> Tensor:
        return ((x + self.offset) / (1 + self.offset) * torch.pi / 2).cos().log()
