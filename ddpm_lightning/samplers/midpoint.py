"""Midpoint walk: x_t -> u_{t-1} -> x_s, two exact draws with one estimate of x_0.

u_{t-1} is what the step to t started from: (x_{t-1} + x_{t-2}) / 2 on the median chain, x_{t-1} on
the standard one. Given u_{t-1} and x_0, x_t is independent of everything before it, so that the two
draws together have the law of x_s | x_t, x_0; with s = t - 2, one network call walks two steps.
A stride that ends before u_{t-1}, as a continuous process allows, is a single draw.
"""

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point, Walk
from ddpm_lightning.tensors import combine


class MidpointSampler(Sampler):
    """In law ancestral sampling, by way of the midpoints."""

    order = 1
    stochastic = True

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0 = walk.estimate(x, here)
        if not there.sigma:
            return x_0
        if max(walk.process.origin(here.t).times) >= there.t:
            legs = [walk.process.to_origin(here.t), walk.process.from_origin(there.t, here.t)]
        else:
            legs = [walk.process.conditional(there.t, here.t)]
        for leg in legs:
            x = combine(leg.of_x_t, x, leg.of_x_0, x_0)
            x.add_(walk.draw(), alpha=float(leg.variance.sqrt()))
        return x
