"""Learned uncertainty (Karras et al. 2024, EDM2, eq. 14 to 16): losses of all levels in balance.

A log-variance u of log-SNR is trained along with the denoiser, on

    L / exp(u(log-SNR)) + u(log-SNR),

which is least where exp(u) is the expected loss L of the level: every level then contributes a loss
of about 1, however hard it is.
"""

import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR, Level
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.simple import SimpleLoss

NUM_FREQUENCIES = 16
SIMPLE = SimpleLoss()


class UncertaintyLoss(Loss, nn.Module):
    """Divides another loss by what is expected of it at a level, and learns that.

    u is linear in sines and cosines of log-SNR, 0 in the beginning. Values of this loss may be
    negative, and only the loss inside is comparable between runs.

    Args:
        loss: at each level.
    """

    frequencies: Tensor

    def __init__(self, loss: Loss = SIMPLE) -> None:
        super().__init__()
        self.loss = loss
        self.num_outputs, self.by_frame = loss.num_outputs, loss.by_frame
        # Periods from the range of log-SNR, +-40, down to 4.
        periods = torch.logspace(1.903, 0.602, NUM_FREQUENCIES)
        self.register_buffer("frequencies", 2 * torch.pi / periods, persistent=False)
        self.weight = nn.Parameter(torch.zeros(2 * NUM_FREQUENCIES))
        self.bias = nn.Parameter(torch.zeros(()))

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        log_variance = self.log_variance(level.log_snr).to(x_0.dtype)
        loss = self.loss(denoiser, x_0, t, level, noise, **conditions)
        return loss * (-log_variance).exp() + log_variance

    def log_variance(self, log_snr: Tensor) -> Tensor:
        """Return u at log-SNRs, (B,) or (B, F)."""
        log_snr = log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR).to(self.frequencies, non_blocking=True)
        angle = log_snr[..., None] * self.frequencies
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return (waves * self.weight).sum(
            -1
        ) + self.bias  # no matrix product: float32 under autocast
