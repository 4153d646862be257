"""Linear schedule: beta rises evenly from 1e-4 to 0.02, for T = 1000 (Ho et al. 2020).

For another T both ends are scaled by 1000 / T, so that the whole chain destroys as much signal.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, check_ends, check_max_beta


class LinearSchedule(NoiseSchedule):
    """beta_t evenly spaced between start and end (both as for T = 1000), clipped at max_beta."""

    def __init__(
        self,
        num_steps: int = 1000,
        start: float = 0.0001,
        end: float = 0.02,
        max_beta: float = 0.9999,
    ) -> None:
        super().__init__(num_steps)
        check_ends(start, end, "0.0001 and 0.02")
        check_max_beta(max_beta)
        self.start, self.end, self.max_beta = start, end, max_beta

    def betas(self) -> Tensor:
        scale = 1000 / self.num_steps
        return torch.linspace(
            scale * self.start, scale * self.end, self.num_steps, dtype=torch.float64
        ).clamp(max=self.max_beta)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return -1/2 of the integral of beta(t), which rises linearly and is not clipped."""
        x = t / self.num_steps
        return -500 * (self.start * x + (self.end - self.start) * x.square() / 2)
