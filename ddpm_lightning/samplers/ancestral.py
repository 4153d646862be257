"""Ancestral sampling: x_s ~ x_s | x_t, x_0 = D, the chain's own conditional (Ho et al. 2020, alg.
2).

Strides of any length are exact given x_0. On the median chain the stride of two is the midpoint
walk x_t -> u_{t-1} -> x_{t-2}: one network call, two steps of the chain.
"""

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler, Walk


class AncestralSampler(Sampler):
    """x_s = mean + std noise, from C[s, t]."""

    order = 1
    stochastic = True

    def step(self, walk: Walk, x: Tensor, x_0: Tensor, t: int, s: int) -> Tensor:
        mean, std = walk.process.condition(x_0, x, s, t)
        return mean + std * walk.draw()
