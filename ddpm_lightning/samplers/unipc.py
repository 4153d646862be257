"""UniPC (Zhao et al. 2023), multistep, data prediction, B(h) = exp(h) - 1.

Over l = log(alpha / sigma): a predictor of order p goes to the next point with the last p estimates
of x_0; the estimate made there then also corrects the x it was made from, which raises the order to
p + 1 without a further network call.
"""

from math import expm1, factorial

import numpy as np
from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Past, Point, Walk

MAX_ORDER = 3  # of the predictor


class UniPCSampler(Sampler):
    """Walks with one evaluation a step.

    Args:
        predictor_order: p, 1 to 3. The first steps use what there is, which costs p = 3 its order
            unless they are taken where the estimate hardly changes, as at the prior.
    """

    stochastic = False
    looks_back = MAX_ORDER

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
        predictor_order: int = 2,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if not 1 <= predictor_order <= MAX_ORDER:
            raise ValueError(
                f"predictor_order must be 1, 2 or {MAX_ORDER}, got {predictor_order}; 2 is usual"
            )
        self.predictor_order = predictor_order
        self.order = predictor_order + 1

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        known = list(walk.past)[: self.predictor_order]
        x_0 = walk.estimate(x, here)
        if known:
            x = _corrected(x, known, Past(here, x_0))
        if not there.sigma:
            return x_0
        nodes = list(walk.past)[: self.predictor_order]
        shares = _shares([node.point for node in nodes], there)
        return _added(x * (there.sigma / here.sigma), nodes, shares, there.alpha)


def _corrected(x: Tensor, known: list[Past], new: Past) -> Tensor:
    """Return x with the corrector's integral, which uses the estimate at x, for the predictor's."""
    points = [node.point for node in known]
    shares = _shares([*points, new.point], new.point)
    for k, predicted in enumerate(_shares(points, new.point)):
        shares[k] -= predicted
    return _added(x.clone(), [*known, new], shares, new.point.alpha)


def _added(x: Tensor, nodes: list[Past], shares: list[float], alpha: float) -> Tensor:
    for share, node in zip(shares, nodes, strict=True):
        x.add_(node.x_0, alpha=alpha * share)
    return x


def _shares(points: list[Point], target: Point) -> list[float]:
    """Return the share of each estimate (eq. 5-9); the step starts at the first of the points."""
    start = points[0].log_ratio
    h = target.log_ratio - start
    gain = -expm1(-h)
    r = np.array([(point.log_ratio - start) / h for point in points[1:]])
    if not len(r):
        return [gain]
    if len(r) == 1:
        rho = np.array([0.5])  # solves the system below to its order, and is customary
    else:
        phi, b = gain / h - 1, []
        for k in range(1, len(r) + 1):
            b.append(-phi * factorial(k) / gain)
            phi = -phi / h - 1 / factorial(k + 1)
        rho = np.linalg.solve(np.vander(r, increasing=True).T, np.array(b))
    others = gain * rho / r
    return [gain - float(others.sum()), *others.tolist()]
