"""Continuous variance-preserving process (Song et al. 2021, eq. 11), for real t in [0, T].

    dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw
    alpha_t = exp(-1/2 int_0^t beta),   sigma_t^2 = 1 - alpha_t^2

with alpha from the schedule: in closed form (linear, cosine), or interpolated between the steps of
the standard chain, which it meets at whole t that noise follows.
"""

import torch
from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.axis import ContinuousAxis, TimeAxis
from ddpm_lightning.processes.base import Combination, GaussianProcess, Time


class VariancePreservingProcess(GaussianProcess):
    """Its unit of time is a step of the chain with the same schedule."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__(schedule.num_steps)
        self.schedule = schedule
        self.num_zero_betas = int((schedule.betas() == 0).sum())
        if not float(schedule.log_alpha(torch.tensor(float(self.num_steps)).double())) < 0:
            raise ValueError(
                "the schedule adds no noise at any step, so there is nothing to sample; "
                "choose noise=linear, cosine or hybrid"
            )

    def level(self, t: Time) -> Level:
        log_alpha = self.schedule.log_alpha(_real(t))
        return Level.of(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt())

    def covariance(self, s: Time, t: Time) -> Tensor:
        log_alpha_s, log_alpha_t = (self.schedule.log_alpha(_real(u)) for u in (s, t))
        variance = -torch.expm1(2 * log_alpha_s.maximum(log_alpha_t))
        return (log_alpha_t - log_alpha_s).abs().neg().exp() * variance

    def origin(self, t: Time) -> Combination:
        """Return the point one unit of time earlier, the neighbour on the chain."""
        return Combination(((_real(t) - 1).clamp(min=0),), (1.0,))

    def build_axis(self, floor: float) -> TimeAxis:
        first = min(1.0, self.num_steps / 1000)
        return ContinuousAxis(self.log_snr, first, float(self.num_steps), floor)


def _real(t: Time) -> Tensor:
    return torch.as_tensor(t, device="cpu").double()
