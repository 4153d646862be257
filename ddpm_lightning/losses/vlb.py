"""Variational bound as a loss: its terms, one at a time (Ho et al. 2020, L in table 2)."""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.bound import step_nats
from ddpm_lightning.processes.axis import TimeAxis


class VLBLoss(Loss):
    """Estimates the bound in nats per value, along the usable times; the term of x_T is left out.

    It is unbiased where these are drawn evenly, as times=uniform_t and stratified do; other times
    weigh its terms by their density.
    """

    by_frame = False

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
        _, estimate = denoiser.loss_and_estimate(x_0, level, noise, **conditions)
        return bound_estimate(denoiser, axis, x_0, t, estimate)


def bound_estimate(
    denoiser: Denoiser, axis: TimeAxis, x_0: Tensor, t: Tensor, estimate: Estimate
) -> Tensor:
    """Return the term (B,) of the step down from t, times the number of steps."""
    s = axis.before(t)
    return axis.num_steps * step_nats(denoiser, s, t, x_0, estimate)
