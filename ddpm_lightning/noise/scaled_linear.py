"""Scaled-linear schedule: sqrt(beta_t) rises evenly (Rombach et al. 2022, latent diffusion).

Both ends are as for T = 1000; for another T the betas are scaled by 1000 / T.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, check_ends, check_max_beta


class ScaledLinearSchedule(NoiseSchedule):
    """beta_t = (evenly spaced from sqrt(start) to sqrt(end))^2, clipped at max_beta."""

    def __init__(
        self,
        num_steps: int = 1000,
        start: float = 0.00085,
        end: float = 0.012,
        max_beta: float = 0.9999,
    ) -> None:
        super().__init__(num_steps)
        check_ends(start, end, "0.00085 and 0.012")
        check_max_beta(max_beta)
        self.start, self.end, self.max_beta = start, end, max_beta

    def betas(self) -> Tensor:
        roots = torch.linspace(self.start**0.5, self.end**0.5, self.num_steps, dtype=torch.float64)
        return (1000 / self.num_steps * roots.square()).clamp(max=self.max_beta)
