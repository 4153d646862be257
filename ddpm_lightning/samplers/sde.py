"""Euler-Maruyama on the reverse SDE, corrected by Langevin steps (Song et al. 2021, alg. 2-5).

The Markov diffusion with the process's marginals is, in y = x / alpha and v = (sigma / alpha)^2,
dy = sqrt(dv) dw. Its reverse, and the whole family with the same marginals, step from v_t to v_s by

    y_s = y - (1 + eta^2) / 2 (1 - v_s / v_t) (y - D) + eta sqrt(v_t - v_s) noise:

eta = 1 is the reverse SDE, eta = 0 the probability-flow ODE.

A Langevin step at a fixed t, x + e score + sqrt(2 e) noise, moves x towards the marginal there. Its
size is e = 2 (r sigma)^2: that of Song et al. with the score's norm at its expectation, so that no
sample's step depends on the others.
"""

from math import expm1, sqrt

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Point, Walk
from ddpm_lightning.tensors import combine


class SDESampler(Sampler):
    """Predicts each step, and corrects it by corrector_steps evaluations more, but for the last.

    Args:
        eta: how much noise the reverse process adds, 0 for none.
        corrector_steps: Langevin steps after each predictor step.
        corrector_snr: r, their signal-to-noise ratio.
    """

    order = 1  # weak

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
        eta: float = 1.0,
        corrector_steps: int = 0,
        corrector_snr: float = 0.16,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if eta < 0 or corrector_steps < 0 or corrector_snr <= 0:
            raise ValueError(
                "eta and corrector_steps must be 0 or more and corrector_snr positive, "
                f"got {eta}, {corrector_steps} and {corrector_snr}"
            )
        self.eta = eta
        self.corrector_steps, self.corrector_snr = corrector_steps, corrector_snr
        self.stochastic = eta > 0 or corrector_steps > 0

    @property
    def num_intervals(self) -> int:
        return max(1, (self.num_evaluations + self.corrector_steps) // (1 + self.corrector_steps))

    @property
    def num_calls(self) -> int:
        return self.num_intervals + (self.num_intervals - 1) * self.corrector_steps

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0 = walk.estimate(x, here)
        if not there.sigma:
            return x_0
        fall = -expm1(2 * (here.log_ratio - there.log_ratio))  # 1 - v_s / v_t
        pull = (1 + self.eta**2) / 2 * fall
        x = combine((1 - pull) * there.alpha / here.alpha, x, pull * there.alpha, x_0)
        if self.eta:
            x.add_(walk.draw(), alpha=self.eta * there.alpha * here.ratio * sqrt(fall))
        for _ in range(self.corrector_steps):
            x = self._corrected(walk, x, there)
        return x

    def _corrected(self, walk: Walk, x: Tensor, point: Point) -> Tensor:
        x_0 = walk.estimate(x, point)
        pull = 2 * self.corrector_snr**2  # e / sigma^2
        x = combine(1 - pull, x, pull * point.alpha, x_0)
        return x.add_(walk.draw(), alpha=sqrt(2 * pull) * point.sigma)
