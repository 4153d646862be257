"""Continuous processes, for real t in [0, T]: Markov diffusions with alpha from a noise schedule.

    dx = f(t) x dt + g(t) dw,   f = d log alpha / dt,   g^2 = d sigma^2 / dt - 2 f sigma^2

Whatever alpha_t and sigma_t are, x / alpha is Brownian motion on the clock (sigma / alpha)^2, so
that C[s, t] = alpha_t / alpha_s sigma_s^2 for s <= t: a process of this kind is its marginals.
Those of one log-SNR differ in the scale of x alone.

The schedule gives log alpha of the variance-preserving one: in closed form (linear, cosine, flow),
or interpolated between the steps of the standard chain, which it meets at whole t that noise
follows.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.axis import NO_NOISE, ContinuousAxis, TimeAxis
from ddpm_lightning.processes.base import Combination, GaussianProcess, Time


class ContinuousProcess(GaussianProcess, ABC):
    """Derives a process from `marginals`; its unit of time is a step of the schedule's chain."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__(schedule.num_steps)
        self.schedule = schedule
        self.num_zero_betas = int((schedule.betas() == 0).sum())
        if not float(schedule.log_alpha(torch.tensor(float(self.num_steps)).double())) < 0:
            raise ValueError(NO_NOISE)

    @abstractmethod
    def marginals(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return log alpha_t and sigma_t^2 where the schedule has this log alpha, float64: 0 and 0
        at 0. Their log-SNR must fall with it.
        """

    def level(self, t: Time) -> Level:
        log_alpha, variance = self.marginals(self.schedule.log_alpha(_real(t)))
        return Level.of(log_alpha.exp(), variance.sqrt())

    def covariance(self, s: Time, t: Time) -> Tensor:
        log_alpha_s, log_alpha_t = (self.schedule.log_alpha(_real(u)) for u in (s, t))
        earlier, variance = self.marginals(log_alpha_s.maximum(log_alpha_t))
        later, _ = self.marginals(log_alpha_s.minimum(log_alpha_t))
        return (later - earlier).exp() * variance

    def origin(self, t: Time) -> Combination:
        """Return the point one unit of time earlier, the neighbour on the chain."""
        return Combination(((_real(t) - 1).clamp(min=0),), (1.0,))

    def build_axis(self, floor: float) -> TimeAxis:
        first = min(1.0, self.num_steps / 1000)
        return ContinuousAxis(self.log_snr, first, float(self.num_steps), floor)


class VariancePreservingProcess(ContinuousProcess):
    """Keeps alpha_t^2 + sigma_t^2 = 1: dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw, with
    alpha_t = exp(-1/2 int_0^t beta) (Song et al. 2021, eq. 11).
    """

    def marginals(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        return log_alpha, -torch.expm1(2 * log_alpha)


def _real(t: Time) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64, device="cpu")
