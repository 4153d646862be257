"""Flow objective: the network predicts the direction from data to noise (rectified flow, Liu et al.
2023; Stable Diffusion 3, Esser et al. 2024).

u = noise - x_0, which is dx_t / dt where x_t = (1 - t) x_0 + t noise. At any alpha and sigma

    x_0 = (x_t - sigma u) / (alpha + sigma).

It is no multiple of `velocity` v: with n = alpha^2 + sigma^2

    u = (alpha + sigma) / sqrt(n) v + (sigma - alpha) / n x_t,

so that a network that predicts u is one that predicts v, with a known share of its input added, and
its squared error that of v times (alpha + sigma)^2 / n, which is 1 at both ends and 2 at log-SNR 0.
"""

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling


class FlowObjective(Objective):
    """x_0 = (x_t - sigma F) / (alpha + sigma)."""

    def scaling(self, level: Level) -> Scaling:
        alpha, sigma, _ = level
        return Scaling(c_skip=1 / (alpha + sigma), c_out=-sigma / (alpha + sigma))
