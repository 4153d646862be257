"""What a sampler is: a rule for one step x_t -> x_s, repeated along a grid of falling times.

A sampler sees the process (alpha, sigma, C) and an estimate of x_0, nothing else: it knows neither
which process nor which objective it serves. Coefficients are numbers, computed in float64 from
tables on the CPU; nothing in the loop waits for the accelerator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.noise import Generators, noise_source
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Draw, Point, State, Walk


class Sampler(ABC):
    """Walks from the prior to data.

    Args:
        num_evaluations: the most network calls of one walk.
        grid: where along the process they are made.
        thresholding: how estimates of x_0 are held within the range of data.
    """

    order: int  # of convergence, as an ODE solver
    stochastic: bool
    looks_back = 1  # estimates of x_0 that a step uses, its own included

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
    ) -> None:
        if num_evaluations < 1:
            raise ValueError(
                f"num_evaluations must be at least 1, got {num_evaluations}; 50 is usual"
            )
        self.num_evaluations = num_evaluations
        self.grid = grid
        self.thresholding = thresholding

    @torch.no_grad()
    def sample(
        self,
        denoiser: Estimator,
        shape: tuple[int, ...],
        *,
        generator: Generators = None,
        device: torch.device | str = "cpu",
        callback: Callable[[State], None] | None = None,
    ) -> Tensor:
        """Return clips of the given shape (B, C, F, H, W), float32, standardised.

        Args:
            generator: of the noise; one for all, or one for each of the B clips, which then do not
                depend on the batch they are in. Noise is drawn on the generator's own device: with
                generators on the CPU a seed means the same clips on every accelerator.
            callback: receives every state of the walk before its step, and at t = 0 the clips.
        """
        draw = noise_source(shape, generator, device)
        times = self.times(denoiser.process, log_snr_floor(shape))
        x = self.start(Point.at(denoiser.process, times[0]), denoiser.process, draw)
        return self.walk(denoiser, x, times, draw, callback)

    def times(self, process: GaussianProcess, floor: float) -> Tensor:
        """Return the falling times of a walk from the log-SNR floor of its clips, 0 at the end.

        Raises:
            ValueError: where the process has too few.
        """
        return self.grid.times(self.axis(process, floor), self.num_intervals)

    def walk(
        self,
        denoiser: Estimator,
        x: Tensor,
        times: Tensor,
        draw: Draw,
        callback: Callable[[State], None] | None = None,
    ) -> Tensor:
        """Return x, in its dtype, at the last of the falling times, from x at times[0].

        Args:
            x: (B, ...), or what `start` gives.
            draw: fresh N(0, I) noise like a clip.
        """
        statistics = denoiser.statistics

        def limit(x_0: Tensor) -> Tensor:
            return statistics.from_values(self.thresholding.apply(statistics.to_values(x_0)))

        points = [Point.at(denoiser.process, t) for t in times]
        walk = Walk(denoiser, limit, draw, callback, self.looks_back, points[0])
        for here, there in pairwise(points):
            walk.open_step(here)
            x = self.step(walk, x, here, there)
        if callback and not points[-1].sigma:
            callback(State(0, x, x))
        return x

    @property
    def num_intervals(self) -> int:
        """Return the largest number of steps that stay within num_evaluations."""
        return self.num_evaluations

    @property
    def num_calls(self) -> int:
        """Return the evaluations of one walk: num_evaluations, or as close below as steps allow."""
        return self.num_intervals

    def axis(self, process: GaussianProcess, floor: float) -> TimeAxis:
        """Return where a walk may stop."""
        return process.axis(floor)

    def start(self, point: Point, process: GaussianProcess, draw: Draw) -> Tensor:
        """Return a draw from the prior at the first point of the grid."""
        return draw() * point.sigma

    def diffuse(self, x_0: Tensor, point: Point, process: GaussianProcess, draw: Draw) -> Tensor:
        """Return what `start` does where clips x_0 (B, ...) are known: a walk from there changes
        them (SDEdit, Meng et al. 2022).
        """
        return torch.add(self.start(point, process, draw), x_0, alpha=point.alpha)

    @abstractmethod
    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        """Return x at `there` from x at `here`; data where `there` is t = 0."""
