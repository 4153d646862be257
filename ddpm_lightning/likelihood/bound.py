"""Variational bounds on the likelihood (Sohl-Dickstein et al. 2015; Ho et al. 2020, eq. 5).

    -log p(x_0) <= L_T + sum over the grid of L_s + L_0

L_T is the divergence of the noisiest x_T given x_0 from the prior N(0, sigma_T^2), L_s that of the
model's step t -> s from the process's own conditional, L_0 the decoder's: a Gaussian around the
estimate, with the noise that is left, sigma / alpha, as its std.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from math import log

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.likelihood.base import Likelihood, Nats, gaussian_nats
from ddpm_lightning.losses.bound import decoder_nats
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.noise import Generators, noise_source


class Bound(Likelihood, ABC):
    """Estimates each term with one draw of noise and one call of the denoiser.

    Args:
        num_terms: L_0 and the L_s together; None for every usable step.
        grid: where along the process they are.
    """

    def __init__(
        self,
        num_terms: int | None = None,
        grid: Grid = UniformTimeGrid(),
        discrete: bool = True,
    ) -> None:
        super().__init__(discrete)
        if num_terms is not None and num_terms < 1:
            raise ValueError(f"num_terms must be at least 1, or null for all, got {num_terms}")
        self.num_terms = num_terms
        self.grid = grid

    def times(self, process: GaussianProcess, floor: float) -> Tensor:
        """Return the falling times of the grid from the clips' log-SNR floor, 0 at the end."""
        axis = self.axis(process, floor)
        return self.grid.times(axis, self.num_terms or int(axis.num_steps))

    @torch.no_grad()
    def nats(self, denoiser: Estimator, x_0: Tensor, generator: Generators = None) -> Nats:
        process = denoiser.process
        times = self.times(process, log_snr_floor(x_0.shape))
        draw = noise_source(tuple(x_0.shape), generator, x_0.device)
        alpha, sigma, _ = self.observed(process, times[0])
        snr = float((alpha / sigma).square())
        terms = {"prior": snr / 2 * x_0.square().flatten(1).mean(1)}
        for t, s in pairwise(times):
            level = self.observed(process, t)
            x = level.diffuse(x_0, draw().to(x_0.dtype))
            estimate = denoiser.estimate_at(x, level)
            if s > 0:
                name = f"{s.item():g} from {t.item():g}"
                terms[name] = self.step_nats(process, s, t, x_0, estimate)
            elif self.discrete:
                terms["decoder"] = decoder_nats(denoiser, level, x_0, estimate.x_0)
            else:
                std = float(level.sigma / level.alpha)
                density = gaussian_nats(x_0, estimate.x_0, std)
                terms["decoder"] = density - log(denoiser.statistics.scale)
        return Nats(terms)

    @abstractmethod
    def axis(self, process: GaussianProcess, floor: float) -> TimeAxis:
        """Return the axis that the times of the grid lie on."""

    @abstractmethod
    def observed(self, process: GaussianProcess, t: Tensor) -> Level:
        """Return the level of what the network sees at t."""

    @abstractmethod
    def step_nats(
        self, process: GaussianProcess, s: Tensor, t: Tensor, x_0: Tensor, estimate: Estimate
    ) -> Tensor:
        """Return L_s (B,), in nats per value, of the step from t to s > 0."""
