"""Euler's method in x / alpha over the noise level sigma / alpha, with churn (Karras et al. 2022).

Without churn it is DDIM.
"""

from torch import Tensor

from ddpm_lightning.samplers.churn import ChurnSampler
from ddpm_lightning.samplers.ddim import flow_step
from ddpm_lightning.samplers.walk import Point, Walk


class EulerSampler(ChurnSampler):
    """Walks with one evaluation a step."""

    order = 1

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x, here = self.churned(walk, x, here)
        return flow_step(x, walk.estimate(x, here), here, there)
