"""What a forward process is: Gaussian given x_0, described by alpha_t and the covariances C[s, t].

Given x_0 every coordinate is Gaussian and independent of the others, so that

    x_t | x_0 ~ N(alpha_t x_0, sigma_t^2),   Cov(x_s, x_t | x_0) = C[s, t],   sigma_t^2 = C[t, t]

say everything, and every conditional follows by Gaussian conditioning. Variance preservation is not
assumed. Times t and coefficients stay on the CPU, in float64 (alpha_T is 6e-96 under the hybrid
schedule); coefficients are cast where they meet a clip.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.tensors import combine, expand

Time = Tensor | float


class Conditional(NamedTuple):
    """The law y | x_t, x_0 ~ N(of_x_t x_t + of_x_0 x_0, variance); float64, shaped like times."""

    of_x_t: Tensor
    of_x_0: Tensor
    variance: Tensor

    def at(self, x_0: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (B, ...) at x_0, x_t, and the std shaped to multiply noise like x_t."""
        mean = combine(self.of_x_0, x_0, self.of_x_t, x_t)
        return mean, expand(self.variance.sqrt(), x_t)


class Combination(NamedTuple):
    """The point sum_k weights_k x at times_k, such as the midpoint of the median chain."""

    times: tuple[Tensor, ...]
    weights: tuple[Tensor | float, ...]


class GaussianProcess(ABC):
    """The law of x_t, 0 <= t <= num_steps; t = 0 is data, t = num_steps the prior.

    Times are tensors, () or (B,), or numbers: whole for a chain, real for a continuous process.
    """

    memory = 1  # states that the law of the next one depends on
    num_zero_betas = 0  # steps that add no noise

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._axes: dict[float, TimeAxis] = {}

    @abstractmethod
    def level(self, t: Time) -> Level:
        """Return alpha_t, sigma_t and log-SNR, float64, on the CPU, shaped like t."""

    @abstractmethod
    def covariance(self, s: Time, t: Time) -> Tensor:
        """Return C[s, t] = Cov(x_s, x_t | x_0) per coordinate, float64, on the CPU."""

    @abstractmethod
    def origin(self, t: Time) -> Combination:
        """Return the point that the step to t >= 1 starts from: x_t is a multiple of it plus noise.

        Given it and x_0, x_t says nothing more about the past. It is x_{t-1} on the standard chain
        and the midpoint (x_{t-1} + x_{t-2}) / 2 on the median one.
        """

    def axis(self, floor: float) -> TimeAxis:
        """Return where a walk may stop: times of strictly decreasing log-SNR, down to the floor."""
        if floor not in self._axes:
            self._axes[floor] = self.build_axis(floor)
        return self._axes[floor]

    @abstractmethod
    def build_axis(self, floor: float) -> TimeAxis:
        """Build what `axis` returns, which keeps it."""

    def state_axis(self, floor: float) -> TimeAxis:
        """Return where a walk of whole states, the last `memory` values, may stop."""
        return self.axis(floor)

    def informative_time(self, fraction: Tensor, floor: float) -> Tensor:
        """Return the usable time t > 0 at a fraction in [0, 1) of the way to the log-SNR floor.

        What lies beyond the floor, `log_snr_floor` of the clips, is pure noise: training and
        sampling stay within it.
        """
        return self.axis(floor).at_fraction(fraction)

    def log_snr(self, t: Time) -> Tensor:
        """Return 2 log(alpha_t / sigma_t), float64; infinite where no noise was added yet."""
        return self.level(t).log_snr

    def diffuse(self, x_0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x_0 + sigma_t noise; x_0 and noise (B, ...), noise ~ N(0, I)."""
        return self.level(t).diffuse(x_0, noise)

    def conditional(self, s: Time, t: Time) -> Conditional:
        """Return the law of x_s given x_t and x_0, 0 <= s < t; the variance is 0 at s = 0.

        For the standard process this is Ho et al. 2020, eq. 6-7.
        """
        if bool((torch.as_tensor(s) >= torch.as_tensor(t)).any()):
            raise ValueError(f"s must be less than t, got s={_plain(s)} and t={_plain(t)}")
        alpha_s, alpha_t = self.level(s).alpha, self.level(t).alpha
        variance_s, variance_t = self.covariance(s, s), self.covariance(t, t)
        return _condition(alpha_s, variance_s, self.covariance(s, t), alpha_t, variance_t)

    def upper_variance(self, s: Time, t: Time) -> Tensor:
        """Return the variance of x_s given x_t alone, for data N(0, 1).

        It is beta_t between neighbours of the standard chain. The conditional variance, for data
        that is one point, is the lower bound.
        """
        alpha_s, sigma_s, _ = self.level(s)
        alpha_t, sigma_t, _ = self.level(t)
        covariance = alpha_s * alpha_t + self.covariance(s, t)
        total_s = alpha_s.square() + sigma_s.square()
        return total_s - covariance.square() / (alpha_t.square() + sigma_t.square())

    def condition(self, x_0: Tensor, x_t: Tensor, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """Return the mean (B, ...) and std of x_s given x_t and x_0 (B, ...): see `conditional`."""
        if x_0.shape != x_t.shape:
            raise ValueError(f"x_0 and x_t differ in shape: {_sizes(x_0)} and {_sizes(x_t)}")
        return self.conditional(s, t).at(x_0, x_t)

    def to_origin(self, t: Time) -> Conditional:
        """Return the law of the point that the step to t >= 1 starts from, given x_t and x_0.

        Between neighbours DDPM's posterior (Ho et al. 2020, eq. 6-7), with the median chain's
        midpoint in the place of x_{t-1}.
        """
        u = self.origin(t)
        return _condition(
            self._signal(u),
            self._variance(u),
            self._covariance_with(u, t),
            self.level(t).alpha,
            self.covariance(t, t),
        )

    def from_origin(self, s: Time, t: Time) -> Conditional:
        """Return the law of x_s given x_0 and the point that the step to t starts from."""
        u = self.origin(t)
        return _condition(
            self.level(s).alpha,
            self.covariance(s, s),
            self._covariance_with(u, s),
            self._signal(u),
            self._variance(u),
        )

    @property
    def prior_std(self) -> float:
        """Return sigma_T: the process ends at N(0, prior_std^2 I)."""
        return float(self.level(self.num_steps).sigma)

    def _signal(self, u: Combination) -> Tensor:
        return sum_of(w * self.level(t).alpha for w, t in zip(u.weights, u.times, strict=True))

    def _covariance_with(self, u: Combination, s: Time) -> Tensor:
        return sum_of(w * self.covariance(s, t) for w, t in zip(u.weights, u.times, strict=True))

    def _variance(self, u: Combination) -> Tensor:
        return sum_of(
            w * self._covariance_with(u, t) for w, t in zip(u.weights, u.times, strict=True)
        )


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of one or more tensors."""
    return reduce(add, terms)


def _condition(
    alpha_y: Tensor, variance_y: Tensor, covariance: Tensor, alpha_x: Tensor, variance_x: Tensor
) -> Conditional:
    """Return the law of y ~ N(alpha_y x_0, variance_y) given x ~ N(alpha_x x_0, variance_x)."""
    # An x that has no noise yet is x_0 itself: there is nothing to condition on.
    gain = torch.where(variance_x > 0, covariance / variance_x, 0.0)
    variance = (variance_y - gain * covariance).clamp(min=0)
    return Conditional(gain, alpha_y - gain * alpha_x, variance)


def _sizes(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def _plain(t: Time) -> float | list[float]:
    plain: float | list[float] = torch.as_tensor(t).tolist()
    return plain
