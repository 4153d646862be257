"""Heun's method in x / alpha over the noise level r = sigma / alpha (Karras et al. 2022, alg. 1
and 2).

With y = x / alpha the probability-flow ODE is dy / dr = (y - D) / r: the trapezium of that slope at
both ends of an interval, the far end reached by an Euler step, which alone takes the last one.
"""

from torch import Tensor

from ddpm_lightning.samplers.churn import ChurnSampler
from ddpm_lightning.samplers.ddim import flow_step
from ddpm_lightning.samplers.walk import Point, Walk


class HeunSampler(ChurnSampler):
    """Walks with two evaluations an interval, one in the last: 49 of 50 walk 25 intervals."""

    order = 2

    @property
    def num_intervals(self) -> int:
        return (self.num_evaluations + 1) // 2

    @property
    def num_calls(self) -> int:
        return 2 * self.num_intervals - 1

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x, here = self.churned(walk, x, here)
        x_0 = walk.estimate(x, here)
        x_s = flow_step(x, x_0, here, there)
        if not there.sigma:
            return x_s
        x_0_s = walk.estimate(x_s, there)
        # Half of the Euler step, and half of another one with the slope at the far end.
        slope = (there.ratio - here.ratio) / 2 / there.ratio
        x_s = x_s.mul_(0.5 + slope).add_(x, alpha=there.alpha / here.alpha / 2)
        return x_s.add_(x_0_s, alpha=-slope * there.alpha)
