"""DDIM (Song et al. 2021, eq. 12), for any marginals.

    x_s = alpha_s D + sigma_s z,   z = (x_t - alpha_t D) / sigma_t.

eta > 0 replaces part of z by fresh noise; eta = 1 is ancestral sampling, for every process, because
sigma_s^2 minus the conditional variance of x_s is (C[s, t] / sigma_t)^2.
"""

from math import sqrt

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler, Walk


class DDIMSampler(Sampler):
    """The probability-flow ODE's first-order walk (eta = 0) and its stochastic relatives."""

    order = 1

    def __init__(self, num_evaluations: int, clip: float | None, eta: float) -> None:
        super().__init__(num_evaluations, clip)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; 0 is DDIM, 1 is ancestral")
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, walk: Walk, x: Tensor, x_0: Tensor, t: int, s: int) -> Tensor:
        alpha_t, sigma_t = map(float, walk.process.marginal(t))
        alpha_s, sigma_s = map(float, walk.process.marginal(s))
        z = (x - alpha_t * x_0) / sigma_t
        if not self.stochastic:
            return alpha_s * x_0 + sigma_s * z
        std = self.eta * float(walk.process.condition(x_0, x, s, t)[1])
        return alpha_s * x_0 + sqrt(max(sigma_s**2 - std**2, 0.0)) * z + std * walk.draw()
