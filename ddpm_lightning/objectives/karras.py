"""Karras objective: EDM's preconditioning (Karras et al. 2022, eq. 7), for any alpha and sigma.

The network predicts what the best linear estimate of x_0 leaves over, at unit variance:

    x_0 = alpha s_d^2 / m x_t + sigma s_d / sqrt(m) F,   m = alpha^2 s_d^2 + sigma^2.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling


class KarrasObjective(Objective):
    """F is of unit variance at every noise level; data_std is s_d."""

    def __init__(self, data_std: float = 0.5) -> None:
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}; 0.5 suits natural clips")
        self.data_std = data_std

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        m = alpha.square() * self.data_std**2 + sigma.square()
        return Scaling(c_skip=alpha * self.data_std**2 / m, c_out=sigma * self.data_std / m.sqrt())
