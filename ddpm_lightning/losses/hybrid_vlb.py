"""Hybrid loss with learned variance (Nichol & Dhariwal 2021, eq. 16).

The simple loss trains the estimate of x_0; the bound, through which the estimate receives no
gradient, trains the variance alone.
"""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.vlb import bound_estimate


class HybridVLBLoss(Loss):
    """Adds vlb_weight times the bound, in nats per value, to the simple loss; see num_outputs."""

    num_outputs = 2
    by_frame = False

    def __init__(self, vlb_weight: float = 0.001) -> None:
        if not vlb_weight >= 0:
            raise ValueError(f"vlb_weight must be 0 or more, got {vlb_weight}; 0.001 is customary")
        self.vlb_weight = vlb_weight

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
        simple, estimate = denoiser.loss_and_estimate(x_0, level, noise, **conditions)
        still = Estimate(estimate.x_0.detach(), estimate.variance_share)
        bound = bound_estimate(denoiser, axis, x_0, t, still)
        return simple + self.vlb_weight * bound
