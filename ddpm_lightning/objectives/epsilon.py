"""Epsilon objective: the network predicts the noise (Ho et al. 2020)."""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling


class EpsilonObjective(Objective):
    """x_0 = (x_t - sigma F) / alpha."""

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        return Scaling(c_skip=1 / alpha, c_out=-sigma / alpha)
