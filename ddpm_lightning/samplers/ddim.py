"""DDIM (Song et al. 2021, eq. 12), for any marginals.

    x_s = alpha_s D + sigma_s z,   z = (x_t - alpha_t D) / sigma_t.

eta > 0 replaces part of z by fresh noise; eta = 1 is ancestral sampling where C[s, t] >= 0, because
sigma_s^2 minus the conditional variance of x_s is (C[s, t] / sigma_t)^2.
"""

from math import sqrt

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.inversion import invert
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Point, Walk
from ddpm_lightning.tensors import combine


class DDIMSampler(Sampler):
    """Walks the probability-flow ODE at first order (eta = 0), or its stochastic relatives."""

    order = 1

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
        eta: float = 0.0,
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}; 0 is DDIM, 1 is ancestral")
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0 = walk.estimate(x, here)
        if not there.sigma:
            return x_0
        if not self.stochastic:
            return flow_step(x, x_0, here, there)
        std = self.eta * sqrt(walk.process.conditional(there.t, here.t).variance)
        kept = sqrt(max(there.sigma**2 - std**2, 0.0))
        return flow_step(x, x_0, here, there, kept).add_(walk.draw(), alpha=std)

    @torch.no_grad()
    def invert(self, denoiser: Estimator, x: Tensor, tolerance: float = 1e-5) -> Tensor:
        """Return the noise (B, ...) at the start of the grid from which eta = 0 leads to clips x.

        Every step is solved by a fixed-point iteration until it changes x by no more than
        `tolerance`, relative to its size. Estimates are not thresholded, which has no inverse.
        """
        times = self.times(denoiser.process, log_snr_floor(x.shape))
        return invert(denoiser, x, times, tolerance)


def flow_step(
    x: Tensor, x_0: Tensor, here: Point, there: Point, kept: float | None = None
) -> Tensor:
    """Return alpha_s D + kept z along the flow, with D as at `here`; kept is sigma_s."""
    of_x = (there.sigma if kept is None else kept) / here.sigma
    return combine(of_x, x, there.alpha - of_x * here.alpha, x_0)
