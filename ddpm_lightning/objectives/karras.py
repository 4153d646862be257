"""Karras objective: EDM's preconditioning (Karras et al. 2022, eq. 7), for any alpha and sigma.

The network predicts what the best linear estimate of x_0 leaves over, at unit variance:

    x_0 = alpha s_d^2 / m x_t + sigma s_d / sqrt(m) F,   m = alpha^2 s_d^2 + sigma^2.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling
from ddpm_lightning.statistics import DATA_STD


class KarrasObjective(Objective):
    """F is of unit variance at every noise level; s_d is that of standardised clips."""

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        m = alpha.square() * DATA_STD**2 + sigma.square()
        return Scaling(c_skip=alpha * DATA_STD**2 / m, c_out=sigma * DATA_STD / m.sqrt())
