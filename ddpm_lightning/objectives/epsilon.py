"""Epsilon objective: the network predicts the noise (Ho et al. 2020).

x_0 = (x_t - sigma F) / alpha multiplies an error of the network by sigma / alpha: 9e4 times at the
floor of a clip of 16x64x64, so that an error of 1e-2 common to its values would send a walk without
thresholding off by hundreds. Below log-SNR -10.6, where the chain of Ho et al. has ended, the
objective goes on with a ratio of 200: F is the noise less at most x_0 / 200, and still gives x_0
exactly.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling

MAX_RATIO = 200.0  # of sigma / alpha


class EpsilonObjective(Objective):
    """x_0 = (x_t - sigma F) / alpha, with alpha at sigma / MAX_RATIO or more."""

    def scaling(self, level: Level) -> Scaling:
        alpha = level.alpha.maximum(level.sigma / MAX_RATIO)
        return Scaling(c_skip=1 / alpha, c_out=-level.sigma / alpha)
