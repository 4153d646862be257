"""The state of one walk: its point, its past estimates of x_0, and its source of noise."""

from collections import deque
from collections.abc import Callable
from math import exp, inf, log
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import MAX_LOG_SNR, Level
from ddpm_lightning.processes.base import GaussianProcess

Draw = Callable[[], Tensor]


class State(NamedTuple):
    """The argument of a callback before each step: x_t (B, ...), its x_0 estimate and t."""

    t: float
    x: Tensor
    x_0: Tensor


class Point(NamedTuple):
    """A time of the walk and its level, as numbers; log_ratio = log(alpha / sigma)."""

    t: Tensor
    alpha: float
    sigma: float

    @staticmethod
    def at(process: GaussianProcess, t: Tensor) -> "Point":
        """Return a time of the process and its level."""
        alpha, sigma, _ = process.level(t)
        return Point.bounded(t, float(alpha), float(sigma))

    @staticmethod
    def bounded(t: Tensor, alpha: float, sigma: float) -> "Point":
        """Return the point with log-SNR at -MAX_LOG_SNR or above, as the network is trained."""
        return Point(t, max(alpha, sigma * exp(-MAX_LOG_SNR / 2)), sigma)

    @property
    def level(self) -> Level:
        return Level.of(*torch.tensor([self.alpha, self.sigma], dtype=torch.float64))

    @property
    def log_ratio(self) -> float:
        return log(self.alpha) - log(self.sigma) if self.sigma else inf

    @property
    def ratio(self) -> float:
        """Return sigma / alpha, the noise level of Karras et al. 2022."""
        return exp(-self.log_ratio)


class Past(NamedTuple):
    """An estimate of x_0 and the point that it belongs to."""

    point: Point
    x_0: Tensor


class Walk:
    """Offers a sampler's steps the process, estimates of x_0, and fresh noise.

    `start` is where the walk began; `past` holds the last estimates, newest first: one a point.
    """

    def __init__(
        self,
        denoiser: Estimator,
        limit: Callable[[Tensor], Tensor],
        draw: Draw,
        callback: Callable[[State], None] | None,
        looks_back: int,
        start: Point,
    ) -> None:
        self.process = denoiser.process
        self.start = start
        self.draw = draw
        self.past: deque[Past] = deque(maxlen=looks_back)
        self._denoiser = denoiser
        self._limit = limit
        self._callback = callback
        self._unseen: Point | None = None

    def open_step(self, here: Point) -> None:
        """Let the callback receive the next estimate."""
        self._unseen = here

    def estimate(self, x: Tensor, point: Point) -> Tensor:
        """Return x_0 (B, ...) from x at the point, within the range that thresholding allows."""
        return self.estimate_with_variance(x, point).x_0

    def estimate_with_variance(self, x: Tensor, point: Point) -> Estimate:
        """Return the estimate as in `estimate`, with the learned variance where there is one."""
        x_0, variance_share = self._denoiser.estimate_at(x, point.level)
        x_0 = self._limit(x_0)
        if self._callback and self._unseen:
            self._callback(State(self._unseen.t.item(), x, x_0))
            self._unseen = None
        self.past.appendleft(Past(point, x_0))
        return Estimate(x_0, variance_share)
