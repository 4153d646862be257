"""Estimators made from estimators: whatever bends sampling wraps one, and no sampler knows it.

    D = D_s + (w - 1) (D_s - D_w)

leads away from a weak estimate D_w, beyond a strong one D_s. Under classifier-free guidance (Ho &
Salimans 2022) they are of one network, with and without what is wished for; under autoguidance
(Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself") of two, of which one
has learned less.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.tensors import expand

Both = Callable[[Tensor, Level], tuple[Estimate, Estimate]]


class ConditionalEstimator(Protocol):
    """A denoiser, or what counts its calls: estimates that take conditions."""

    @property
    def process(self) -> GaussianProcess: ...

    @property
    def statistics(self) -> Statistics: ...

    @property
    def conditions(self) -> Conditions: ...

    def estimate_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Estimate: ...


class CountedCalls:
    """Counts how often a network sees a clip."""

    def __init__(self, denoiser: ConditionalEstimator) -> None:
        self.denoiser = denoiser
        self.process, self.statistics = denoiser.process, denoiser.statistics
        self.conditions = denoiser.conditions
        self.num_clips = 0

    def estimate_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Estimate:
        self.num_clips += len(x)
        return self.denoiser.estimate_at(x, level, **conditions)


class Conditioned:
    """Gives a denoiser the same conditions at every call.

    Args:
        conditions: for the B clips of a walk, as Denoiser.denoise_at takes them.
    """

    def __init__(self, denoiser: ConditionalEstimator, **conditions: Tensor) -> None:
        self.denoiser = denoiser
        self.conditions = conditions

    @property
    def process(self) -> GaussianProcess:
        return self.denoiser.process

    @property
    def statistics(self) -> Statistics:
        return self.denoiser.statistics

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return self.denoiser.estimate_at(x, level, **self.conditions)


class Guided:
    """Extrapolates from a weak estimate through a strong one, where it does anything.

    The weak one is not asked for at weight 1 or outside the interval, where the estimate is the
    strong one to the bit. A learned variance is the strong one's.

    Args:
        weight: w; 1 is the strong estimate, 0 the weak one.
        interval: of log-SNR, (lowest, highest), where the weight holds; None is everywhere
            (Kynkaanniemi et al. 2024).
        rescale: how far the standard deviation of each estimate is brought back to the strong
            one's, 0 to 1 (Lin et al. 2023, eq. 15 and 16).
        parallel: what is kept of the part of D_s - D_w that is parallel to D_s; 0 projects it away
            (Sadat et al. 2024, adaptive projected guidance).
        both: gives the strong and the weak estimate by one call; None calls one after the other.
    Raises:
        ValueError: for a negative weight, an empty interval, rescale or parallel outside [0, 1].
    """

    def __init__(
        self,
        strong: Estimator,
        weak: Estimator,
        weight: float,
        interval: Sequence[float] | None = None,
        rescale: float = 0.0,
        parallel: float = 1.0,
        both: Both | None = None,
    ) -> None:
        check_options(weight, interval, rescale, parallel)
        self.strong, self.weak, self.weight = strong, weak, weight
        self.interval, self.rescale, self.parallel = interval, rescale, parallel
        self._both = both or self._one_after_the_other

    @property
    def process(self) -> GaussianProcess:
        return self.strong.process

    @property
    def statistics(self) -> Statistics:
        return self.strong.statistics

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        excess = self._excess(level)
        if not excess.any():
            return self.strong.estimate_at(x, level)
        strong, weak = self._both(x, level)
        away = strong.x_0 - weak.x_0
        if self.parallel < 1:
            away = away - (1 - self.parallel) * _projection(away, strong.x_0)
        x_0 = strong.x_0 + expand(excess, x) * away
        if self.rescale:
            ratio = _std(strong.x_0) / _std(x_0).clamp(min=1e-6)
            x_0 = x_0 * (1 + self.rescale * (ratio - 1))
        return Estimate(x_0, strong.variance_share)

    def _excess(self, level: Level) -> Tensor:
        """Return w - 1 inside the interval, 0 outside, like the level."""
        low, high = self.interval or (-torch.inf, torch.inf)
        inside = (level.log_snr >= low) & (level.log_snr <= high)
        return (self.weight - 1) * inside.double()

    def _one_after_the_other(self, x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
        return self.strong.estimate_at(x, level), self.weak.estimate_at(x, level)


def _projection(x: Tensor, onto: Tensor) -> Tensor:
    """Return the part of each clip of x (B, ...) that is parallel to that of another."""
    flat, direction = x.flatten(1), onto.flatten(1)
    squares = direction.square().sum(1, keepdim=True).clamp(min=1e-12)
    share = (flat * direction).sum(1, keepdim=True) / squares
    return (share * direction).view_as(x)


def _std(x: Tensor) -> Tensor:
    """Return the standard deviation of each clip (B, ...), shaped to multiply it."""
    return x.flatten(1).std(1).view(-1, *[1] * (x.dim() - 1))


def check_options(
    weight: float, interval: Sequence[float] | None, rescale: float, parallel: float
) -> None:
    """Raise ValueError, in one line, for options that Guided does not take."""
    if not weight >= 0:
        raise ValueError(f"guidance.weight must be 0 or more, got {weight}; 1 is no guidance")
    if interval is not None and (len(interval) != 2 or not interval[0] < interval[1]):
        raise ValueError(
            f"guidance.interval must be null or [lowest, highest] log-SNR, got {list(interval)}; "
            "[-6, 4] is an example"
        )
    for name, share in (("rescale", rescale), ("parallel", parallel)):
        if not 0 <= share <= 1:
            raise ValueError(f"guidance.{name} must lie in [0, 1], got {share}")
