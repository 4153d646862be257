"""DPM-Solver++(2M) and its SDE variant (Lu et al. 2022b, alg. 2 and eq. 18).

Over l = log(alpha / sigma), with h = l_s - l_t, the flow is solved for an x_0 estimate that is
taken from a line through the last two, at the middle of the interval:

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) (D_t + h / (2 h_before) (D_t - D_before)).

eta > 0 adds noise and takes away as much: exp(-h) becomes exp(-(1 + eta) h).
"""

from math import exp, expm1, sqrt

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Point, Walk
from ddpm_lightning.tensors import combine


class DPMpp2MSampler(Sampler):
    """Walks at second order with one evaluation a step; eta = 0 is the ODE, 1 the SDE."""

    order = 2
    looks_back = 2

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
        eta: float = 0.0,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if not eta >= 0:
            raise ValueError(f"eta must be 0 or more, got {eta}; 0 is the ODE, 1 the SDE")
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0 = walk.estimate(x, here)
        if not there.sigma:
            return x_0
        h = there.log_ratio - here.log_ratio
        gain = -expm1(-(1 + self.eta) * h)
        of_x = there.sigma / here.sigma * exp(-self.eta * h)
        ahead = 0.0
        if len(walk.past) > 1:
            ahead = h / 2 / (here.log_ratio - walk.past[1].point.log_ratio)
        x_s = combine(of_x, x, there.alpha * gain * (1 + ahead), x_0)
        if ahead:
            x_s.add_(walk.past[1].x_0, alpha=-there.alpha * gain * ahead)
        if self.stochastic:
            x_s.add_(walk.draw(), alpha=there.sigma * sqrt(-expm1(-2 * self.eta * h)))
        return x_s
