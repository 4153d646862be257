"""Loss over density: one objective for all times, which then change its variance alone.

Times draw log-SNR l with a density p(l), so that the expectation of a loss L(l) / p(l) is

    E L / p = integral of L(l) dl,

whatever p is, over the levels that are trained at. This is importance sampling with the density of
the times as the proposal.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.p2 import P2Loss
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling
from ddpm_lightning.times.uniform_t import UniformTime

NUM_QUANTILES = 2**18
P2, STRATIFIED = P2Loss(), UniformTime(stratified=True)


class LossByDensity(Loss):
    """Divides another loss by the density over log-SNR that its levels are drawn with.

    Args:
        loss: to be integrated over log-SNR. P2 is the integrand of val/error; the plain loss on
            velocity does not vanish at the ends, where densities do, and its ratio has no bound.
        times: of training.
    """

    def __init__(self, loss: Loss = P2, times: TimeSampling = STRATIFIED) -> None:
        self.loss, self.times = loss, times
        self.num_outputs, self.by_frame = loss.num_outputs, loss.by_frame

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        floor = log_snr_floor(x_0.shape)
        log_snr, at = density(denoiser.process, self.times, floor)
        middles = (log_snr[1:] + log_snr[:-1]) / 2
        weight = 1 / at[torch.searchsorted(middles, level.log_snr.clamp(min=floor).contiguous())]
        losses = self.loss(denoiser, x_0, t, level, noise, **conditions)
        return losses * weight.to(device=x_0.device, dtype=x_0.dtype)


@lru_cache(maxsize=8)
def density(process: GaussianProcess, times: TimeSampling, floor: float) -> tuple[Tensor, Tensor]:
    """Return levels of log-SNR (n,), ascending, and the density of times there, float64.

    Of a chain they are all that are drawn: with p_i = P(l_i) / (half the way between the neighbours
    of l_i), the mean of L / p is the integral of L by the trapezoidal rule.
    """
    fraction = (torch.arange(NUM_QUANTILES, dtype=torch.float64) + 0.5) / NUM_QUANTILES
    drawn = process.log_snr(times.times(process, fraction, floor)).clamp(min=floor)
    levels, counts = drawn.unique(return_counts=True)
    ends = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2, levels[-1:]])
    return levels, counts / NUM_QUANTILES / ends.diff()
