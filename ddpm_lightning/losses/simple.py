"""Simple loss: the plain mean squared error on the objective's own target (Ho et al. 2020, eq.
14).
"""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level
from ddpm_lightning.losses.base import Loss


class SimpleLoss(Loss):
    """Leaves each objective its own weighting: 1 on the target."""

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        return denoiser.loss(x_0, level, noise, **conditions)
