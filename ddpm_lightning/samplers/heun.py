"""Heun's method on the probability-flow ODE (Karras et al. 2022, alg. 1), over a bounded variable.

With n^2 = alpha^2 + sigma^2, y = x / n and the angle phi = atan(sigma / alpha), the ODE is

    dy / dphi = v,   v = (alpha z - sigma D) / n,   z = (x - alpha D) / sigma:

the trapezium of v at both ends of an interval, the far end reached by DDIM, which alone takes the
last one. Over sigma / alpha itself, which runs to thousands at the prior, the trapezium weighs the
far end by that whole width and blows up (median chain, cosine noise).
"""

from math import atan2, hypot

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler, Walk


class HeunSampler(Sampler):
    """Two network calls an interval, one in the last: 49 of 50 evaluations walk 25 intervals."""

    order = 2
    stochastic = False

    @property
    def num_intervals(self) -> int:
        return (self.num_evaluations + 1) // 2

    def step(self, walk: Walk, x: Tensor, x_0: Tensor, t: int, s: int) -> Tensor:
        alpha_t, sigma_t = map(float, walk.process.marginal(t))
        alpha_s, sigma_s = map(float, walk.process.marginal(s))
        z = (x - alpha_t * x_0) / sigma_t
        x_s = alpha_s * x_0 + sigma_s * z
        if s == 0:
            return x_s
        x_0_s = walk.estimate(x_s, s)
        z_s = (x_s - alpha_s * x_0_s) / sigma_s
        n_t, n_s = hypot(alpha_t, sigma_t), hypot(alpha_s, sigma_s)
        v = (alpha_t * z - sigma_t * x_0) / n_t
        v_s = (alpha_s * z_s - sigma_s * x_0_s) / n_s
        width = atan2(sigma_s, alpha_s) - atan2(sigma_t, alpha_t)
        return n_s * (x / n_t + width * (v + v_s) / 2)
