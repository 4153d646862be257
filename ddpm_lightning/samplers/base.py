"""What a sampler is: a rule for one step x_t -> x_s, repeated along a grid of falling t.

A sampler sees the process (alpha, sigma, C) and an estimate of x_0, nothing else: it knows neither
which process nor which objective it serves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.grid import decreasing_grid


class Estimator(Protocol):
    """What a sampler needs of a denoiser."""

    process: GaussianProcess

    def denoise(self, x_t: Tensor, t: Tensor | int) -> Tensor: ...


class State(NamedTuple):
    """What a callback receives before each step: x_t (B, ...), its x_0 estimate, and the step t."""

    t: int
    x: Tensor
    x_0: Tensor


class Walk(NamedTuple):
    """What one walk offers its steps: the process, estimate(x_t, t) -> x_0, and fresh noise like
    x.
    """

    process: GaussianProcess
    estimate: Callable[[Tensor, int], Tensor]
    draw: Callable[[], Tensor]


class Sampler(ABC):
    """Walks from the prior to data.

    Args:
        num_evaluations: the most network calls of one walk; a short chain takes fewer.
        clip: estimates of x_0 are held within +-clip; None leaves them as they are.
    """

    order: int  # of convergence, as an ODE solver
    stochastic: bool

    def __init__(self, num_evaluations: int, clip: float | None) -> None:
        if num_evaluations < 1:
            raise ValueError(
                f"num_evaluations must be at least 1, got {num_evaluations}; 50 is usual"
            )
        if clip is not None and clip <= 0:
            raise ValueError(f"clip must be positive or null, got {clip}; clips lie in [-1, 1]")
        self.num_evaluations = num_evaluations
        self.clip = clip

    @torch.no_grad()
    def sample(
        self,
        denoiser: Estimator,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        callback: Callable[[State], None] | None = None,
    ) -> Tensor:
        """Clips of the given shape (B, C, F, H, W), float32.

        Noise is drawn on the CPU from `generator`, so that a seed means the same clips on every
        device. The callback receives every state that an x_0 estimate was made for, and the final
        clips at t = 0.
        """
        process = denoiser.process

        def draw() -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        def estimate(x: Tensor, t: int) -> Tensor:
            x_0 = denoiser.denoise(x, t)
            return x_0 if self.clip is None else x_0.clamp(-self.clip, self.clip)

        walk = Walk(process, estimate, draw)
        grid = decreasing_grid(process, self.num_intervals).tolist()
        x = draw() * float(process.marginal(grid[0]).sigma)
        for t, s in pairwise(grid):
            x_0 = estimate(x, t)
            if callback:
                callback(State(t, x, x_0))
            x = self.step(walk, x, x_0, t, s)
        if callback:
            callback(State(0, x, x))
        return x

    @property
    def num_intervals(self) -> int:
        """The most steps that stay within num_evaluations."""
        return self.num_evaluations

    @abstractmethod
    def step(self, walk: Walk, x: Tensor, x_0: Tensor, t: int, s: int) -> Tensor:
        """x_s from x = x_t and its estimate x_0, for s < t; at s = 0 it returns data."""
