"""Epsilon objective: the network predicts the noise (Ho et al. 2020)."""

from torch import Tensor

from ddpm_lightning.objectives.base import Objective, Scaling


class EpsilonObjective(Objective):
    """x_0 = (x_t - sigma F) / alpha."""

    def scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        return Scaling(c_skip=1 / alpha, c_out=-sigma / alpha)
