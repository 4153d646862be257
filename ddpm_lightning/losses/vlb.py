"""Variational bound as a loss: its terms, one at a time (Ho et al. 2020, L in table 2)."""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.bound import step_nats
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess


class VLBLoss(Loss):
    """Estimates the bound in nats per value; unbiased where t is uniform over the usable times.

    The steps are those between neighbours among these. Where a chain has others, below the floor or
    of rising log-SNR, each counts as the usable time closest in log-SNR. The constant term, of x_T,
    is left out.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        axis = denoiser.process.axis(log_snr_floor(x_0.shape))
        t, level = usable(denoiser.process, axis, level)
        _, estimate = denoiser.loss_and_estimate(x_0, level, noise, **conditions)
        return bound_estimate(denoiser, axis, x_0, t, estimate)


def usable(process: GaussianProcess, axis: TimeAxis, level: Level) -> tuple[Tensor, Level]:
    """Return the usable times (B,) that are closest in log-SNR to a level, and their level."""
    t = axis.at_log_snr(level.log_snr)
    return t, process.level(t)


def bound_estimate(
    denoiser: Denoiser, axis: TimeAxis, x_0: Tensor, t: Tensor, estimate: Estimate
) -> Tensor:
    """Return the term (B,) of the step down from t, times the number of steps."""
    s = axis.before(t)
    return axis.num_steps * step_nats(denoiser, s, t, x_0, estimate)
