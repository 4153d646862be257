"""Velocity objective (Salimans & Ho 2022), for any alpha and sigma.

v = (alpha e - sigma x_0) / sqrt(n),   n = alpha^2 + sigma^2,   x_0 = (alpha x_t - sigma sqrt(n) v)
/ n.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling


class VelocityObjective(Objective):
    """x_0 = alpha / n x_t - sigma / sqrt(n) F."""

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        n = alpha.square() + sigma.square()
        return Scaling(c_skip=alpha / n, c_out=-sigma / n.sqrt())
