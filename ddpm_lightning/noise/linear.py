"""Linear schedule: beta rises evenly from 1e-4 to 0.02, for T = 1000 (Ho et al. 2020).

For another T both ends are scaled by 1000 / T, so that the whole chain destroys as much signal.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule


class LinearSchedule(NoiseSchedule):
    """beta_t evenly spaced between start and end (both as for T = 1000), clipped at max_beta."""

    def __init__(self, num_steps: int, start: float, end: float, max_beta: float) -> None:
        super().__init__(num_steps)
        if not 0 <= start <= end:
            raise ValueError(
                f"linear betas need 0 <= start <= end, got start={start}, end={end}; "
                "the customary ends are 0.0001 and 0.02"
            )
        if not 0 < max_beta < 1:
            raise ValueError(f"max_beta must lie in (0, 1), got {max_beta}; 0.9999 is customary")
        self.start, self.end, self.max_beta = start, end, max_beta

    def betas(self) -> Tensor:
        scale = 1000 / self.num_steps
        return torch.linspace(
            scale * self.start, scale * self.end, self.num_steps, dtype=torch.float64
        ).clamp(max=self.max_beta)
