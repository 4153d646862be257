"""Posterior objective: the network predicts the mean of the reverse step (Sohl-Dickstein 2015).

On the standard chain the step to t came from u = x_{t-1}, x_t = r u + sqrt(beta_t) e_t, and the
network's output F displaces its mean from r x_t in the step's own unit:

    E[u | x_t, x_0] = r x_t + beta_t / (r sigma_t) F,   F = (alpha_t x_0 - alpha_t^2 x_t) / sigma_t.

r and beta_t drop out of F. Scaled by n = alpha^2 + sigma^2 to unit sum, a = alpha / sqrt(n) and
s = sigma / sqrt(n), F depends on log-SNR alone on every chain:

    F = (a x_0 - a^2 x_t / sqrt(n)) / s,        x_0 = alpha / n x_t + sigma / alpha F.

It is well scaled also where a step adds no noise. `loss=vlb` weighs its error as the
Kullback-Leibler divergence between the two reverse Gaussians does. sigma / alpha is held as that of
the epsilon objective is, for the same reason.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling
from ddpm_lightning.objectives.epsilon import MAX_RATIO


class PosteriorObjective(Objective):
    """x_0 = alpha / n x_t + sigma / alpha F, with sigma / alpha at MAX_RATIO or less."""

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        n = alpha.square() + sigma.square()
        return Scaling(c_skip=alpha / n, c_out=(sigma / alpha).clamp(max=MAX_RATIO))
