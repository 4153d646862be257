"""Posterior objective: the network predicts the mean of the reverse step (Sohl-Dickstein 2015).

The step goes back to u, which x_t started from: x_t = r u + sqrt(beta_t) e_t with u = x_{t-1} on
the standard chain and u = (x_{t-1} + x_{t-2}) / 2 on the median one. As there, the network's output
is a displacement from r x_t in the step's own unit:

    E[u | x_t, x_0] = r x_t + beta_t / (r sigma_t) F,   F = (alpha_t x_0 - (1 - sigma_t^2) x_t) /
    sigma_t

Since alpha_t = r alpha_u on chains whose weights sum to r, r and beta_t drop out of F, and with
them the process and the step: F is well scaled also where a step adds no noise. `loss=vlb` weighs
its error as the Kullback-Leibler divergence between the two reverse Gaussians does.
"""

from torch import Tensor

from ddpm_lightning.objectives.base import Objective, Scaling


class PosteriorObjective(Objective):
    """x_0 = ((1 - sigma^2) x_t + sigma F) / alpha."""

    def scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        return Scaling(c_skip=(1 - sigma.square()) / alpha, c_out=sigma / alpha)
