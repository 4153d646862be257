"""Churn (Karras et al. 2022, alg. 2): noise is added before a step, which then removes more of it.

The noise level r = sigma / alpha rises to r (1 + gamma) with gamma = min(churn / intervals,
sqrt(2) - 1) where churn_min <= r <= churn_max; the added noise has standard deviation churn_noise
times what that takes.
"""

from math import exp, sqrt

import torch
from torch import Tensor

from ddpm_lightning.level import VALUE_FLOOR
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.karras import KarrasGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Point, Walk


class ChurnSampler(Sampler):
    """Adds the churn that Euler's and Heun's methods share.

    Args:
        churn: S_churn over a whole walk; 0 leaves the walk deterministic.
        churn_min, churn_max: noise levels sigma / alpha between which there is churn.
        churn_noise: S_noise, slightly above 1 to make up for what estimates lose of detail.
    """

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = KarrasGrid(),
        thresholding: Thresholding = StaticThresholding(),
        churn: float = 0.0,
        churn_min: float = 0.05,
        churn_max: float = 50.0,
        churn_noise: float = 1.003,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if min(churn, churn_min, churn_noise) < 0 or churn_max < churn_min:
            raise ValueError(
                "churn, churn_min and churn_noise must be 0 or more and churn_max at least "
                f"churn_min, got {churn}, {churn_min}, {churn_noise} and {churn_max}"
            )
        self.churn = churn
        self.churn_min, self.churn_max = churn_min, churn_max
        self.churn_noise = churn_noise
        self.stochastic = churn > 0

    def churned(self, walk: Walk, x: Tensor, here: Point) -> tuple[Tensor, Point]:
        """Return x with noise added, and the point that it then lies at."""
        if not self.churn or not self.churn_min <= here.ratio <= self.churn_max:
            return x, here
        # The network may know nothing of levels below.
        noisiest = max(walk.start.ratio, exp(-VALUE_FLOOR / 2))
        gamma = max(
            0.0, min(self.churn / self.num_intervals, sqrt(2) - 1, noisiest / here.ratio - 1)
        )
        added = here.sigma * sqrt((1 + gamma) ** 2 - 1)
        noisier = torch.add(x, walk.draw(), alpha=self.churn_noise * added)
        return noisier, here._replace(sigma=here.sigma * (1 + gamma))
