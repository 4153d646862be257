"""Hybrid loss with learned variance (Nichol & Dhariwal 2021, eq. 16).

The simple loss trains the estimate of x_0; the bound, through which the estimate receives no
gradient, trains the variance alone.
"""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.vlb import bound_estimate, usable


class HybridVLBLoss(Loss):
    """simple + vlb_weight times the bound in nats per value; network.outputs must be 2."""

    num_outputs = 2

    def __init__(self, vlb_weight: float = 0.001) -> None:
        if not vlb_weight >= 0:
            raise ValueError(f"vlb_weight must be 0 or more, got {vlb_weight}; 0.001 is customary")
        self.vlb_weight = vlb_weight

    def __call__(self, denoiser: Denoiser, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        t = usable(denoiser.process, t)
        simple, estimate = denoiser.loss_and_estimate(x_0, t, noise)
        still = Estimate(estimate.x_0.detach(), estimate.variance_share)
        return simple + self.vlb_weight * bound_estimate(denoiser.process, x_0, t, still)
