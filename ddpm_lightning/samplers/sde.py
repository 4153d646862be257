"""The reverse SDE, corrected by Langevin steps (Song et al. 2021, alg. 2-5).

The Markov diffusion with the process's marginals is, in y = x / alpha and v = (sigma / alpha)^2,
dy = sqrt(dv) dw. Its reverse, and the whole family with the same marginals, run towards the data by
dy = (1 + eta^2) / 2 (y - D) / v dv + eta sqrt(dv) dw. eta = 1 is the reverse SDE, eta = 0 the
probability-flow ODE. With D as at v_t, this is solved exactly down to v_s, r = v_s / v_t:

    y_s = D + r^((1 + eta^2) / 2) (y - D) + sqrt(v_s (1 - r^(eta^2))) noise.

Euler-Maruyama's noise, eta sqrt(v_t - v_s), is what one point of v_t needs: where v falls by much
in a step, x comes out many times wider than what the network was trained on.

A Langevin step at a fixed t, x + e score + sqrt(2 e) noise, moves x towards the marginal there. Its
size is e = 2 (r sigma)^2: that of Song et al. with the score's norm at its expectation, so that no
sample's step depends on the others. They cost a call each and pay it back only where the predictor
goes wrong: with an exact denoiser no sampler is farther from the data at an equal number of calls.
"""

from math import exp, expm1, sqrt

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
        h, share = there.log_ratio - here.log_ratio, self.eta**2  # r = exp(-2 h)
        of_x = there.sigma / here.sigma * exp(-share * h)
        x = combine(of_x, x, -there.alpha * expm1(-(1 + share) * h), x_0)
        if self.eta:
            x.add_(walk.draw(), alpha=there.sigma * sqrt(-expm1(-2 * share * h)))
        for _ in range(self.corrector_steps):
            x = self._corrected(walk, x, there)
        return x

    def _corrected(self, walk: Walk, x: Tensor, point: Point) -> Tensor:
        x_0 = walk.estimate(x, point)
        pull = 2 * self.corrector_snr**2  # e / sigma^2
        x = combine(1 - pull, x, pull * point.alpha, x_0)
        return x.add_(walk.draw(), alpha=sqrt(2 * pull) * point.sigma)
