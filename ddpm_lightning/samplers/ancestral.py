"""Ancestral sampling: x_s ~ x_s | x_t, x_0 = D, the process's own conditional (Ho et al. 2020, alg.
2).

Strides of any length are exact given x_0. On the median chain the stride of two is the midpoint
walk x_t -> u_{t-1} -> x_{t-2}: one network call, two steps of the chain.

The conditional variance is right for data that is a single point, the upper one for data that is
N(0, I); between them lies the truth, which a network can learn (Nichol & Dhariwal 2021).
"""

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Point, Walk
from ddpm_lightning.tensors import combine, expand


class AncestralSampler(Sampler):
    """Steps by x_s = mean + std noise.

    Args:
        variance: of x_s, between the conditional (0) and the upper one (1), in log scale; None
            takes what the network has learned.
    """

    order = 1
    stochastic = True

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
        variance: float | None = 0.0,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if variance is not None and not 0 <= variance <= 1:
            raise ValueError(
                f"variance must lie in [0, 1], or be null for the learned one, got {variance}"
            )
        self.variance = variance

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0, learned = walk.estimate_with_variance(x, here)
        if not there.sigma:
            return x_0
        of_x_t, of_x_0, lower = walk.process.conditional(there.t, here.t)
        mean = combine(of_x_t, x, of_x_0, x_0)
        share = self.variance if self.variance is not None else learned
        if share is None:
            raise ValueError(
                "variance=null takes the learned variance, and this network has none; "
                "train with loss=hybrid_vlb, or set sampler.variance=0"
            )
        upper = walk.process.upper_variance(there.t, here.t)
        if isinstance(share, float | int):
            std = (lower ** (1 - share) * upper**share).sqrt()
            return mean.add_(walk.draw(), alpha=float(std))
        std = expand(lower.sqrt(), x) * (expand((upper / lower).log() / 2, x) * share).exp()
        return mean.addcmul_(std, walk.draw())
