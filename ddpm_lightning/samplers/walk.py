"""What one walk knows: where it is, what it was told of x_0, and where noise comes from."""

from collections import deque
from collections.abc import Callable
from math import exp, inf, log
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.processes.base import LOG_SNR_FLOOR, GaussianProcess
from ddpm_lightning.tensors import combine

Draw = Callable[[], Tensor]


class Estimator(Protocol):
    """What a sampler needs of a denoiser."""

    @property
    def process(self) -> GaussianProcess: ...

    def estimate_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate: ...


class State(NamedTuple):
    """What a callback receives before each step: x_t (B, ...), its x_0 estimate, and the time t."""

    t: float
    x: Tensor
    x_0: Tensor


class Point(NamedTuple):
    """A time of the walk and its marginal, as numbers; log_ratio = log(alpha / sigma)."""

    t: Tensor
    alpha: float
    sigma: float

    @staticmethod
    def at(process: GaussianProcess, t: Tensor) -> "Point":
        """A time of the process, above the floor."""
        return Point.above_floor(t, *map(float, process.marginal(t)))

    @staticmethod
    def above_floor(t: Tensor, alpha: float, sigma: float) -> "Point":
        """Below the floor the noise is as good as pure, and counts as being at the floor."""
        return Point(t, max(alpha, sigma * exp(LOG_SNR_FLOOR / 2)), sigma)

    @property
    def log_ratio(self) -> float:
        return log(self.alpha) - log(self.sigma) if self.sigma else inf

    @property
    def ratio(self) -> float:
        """sigma / alpha, the noise level of Karras et al. 2022."""
        return exp(-self.log_ratio)


class Past(NamedTuple):
    """An estimate of x_0 that was made at a point."""

    point: Point
    x_0: Tensor


class Walk:
    """Offers a sampler's steps the process, estimates of x_0, and fresh noise.

    `past` holds the last estimates, newest first: one a point.
    """

    def __init__(
        self,
        denoiser: Estimator,
        limit: Callable[[Tensor], Tensor],
        draw: Draw,
        callback: Callable[[State], None] | None,
        looks_back: int,
    ) -> None:
        self.process = denoiser.process
        self.draw = draw
        self.past: deque[Past] = deque(maxlen=looks_back)
        self._denoiser = denoiser
        self._limit = limit
        self._callback = callback
        self._unseen: Point | None = None
        self._spare: Tensor | None = None

    def open_step(self, here: Point) -> None:
        """The next estimate is the one that the callback sees."""
        self._unseen = here

    def close_step(self, x: Tensor) -> None:
        """The state x, of ours, is left behind; where nobody saw it, its memory is used again."""
        seen = self._callback or any(past.x_0 is x for past in self.past)
        self._spare = None if seen else x

    def combine(self, a: Tensor | float, x: Tensor, b: Tensor | float, y: Tensor) -> Tensor:
        """a x + b y for the next state: fresh memory costs more than the arithmetic."""
        out, self._spare = self._spare, None
        return combine(a, x, b, y, out if out is not None and out.shape == x.shape else None)

    def estimate(self, x: Tensor, point: Point) -> Tensor:
        """x_0 (B, ...) from x at the point, within the range that thresholding allows."""
        return self.estimate_with_variance(x, point).x_0

    def estimate_with_variance(self, x: Tensor, point: Point) -> Estimate:
        """The same, with the learned variance where there is one."""
        alpha, sigma = torch.tensor([point.alpha, point.sigma], dtype=torch.float64)
        x_0, variance_share = self._denoiser.estimate_at(x, alpha, sigma)
        x_0 = self._limit(x_0)
        if self._callback and self._unseen:
            self._callback(State(self._unseen.t.item(), x, x_0))
            self._unseen = None
        self.past.appendleft(Past(point, x_0))
        return Estimate(x_0, variance_share)
