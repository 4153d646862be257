"""What a loss is: per-sample numbers from a denoiser, clips, times and noise.

A weighting is a function of log-SNR that multiplies the mean squared error of the x_0 estimate,
whatever the network predicts: objective and weighting are chosen apart from each other.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR, Level


class Loss(ABC):
    """Computes losses per sample (B,), or per frame (B, F); the caller takes the mean."""

    num_outputs = 1  # of the network per channel; 2 where it learns the variance too
    by_frame = True  # whether frames of a clip may have levels of their own

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        """Return the losses, shaped like t.

        Args:
            x_0, noise: (B, ...).   t: (B,) times, or (B, F).   level: of them.
            conditions: of the network.
        """

    def check(self, denoiser: Denoiser, x_0: Tensor) -> None:
        """Raise ValueError unless the network answers clips like x_0 with what the loss needs."""
        level = denoiser.process.level(1)
        conditions = denoiser.conditions.null(len(x_0))
        learned = denoiser.estimate_at(x_0, level, **conditions).variance_share is not None
        if learned != (self.num_outputs == 2):
            raise ValueError(
                f"this loss needs {self.num_outputs} output channels of the network for each of "
                f"the clip's {x_0.shape[1]}, got {2 if learned else 1}; set "
                f"network.out_channels={self.num_outputs * x_0.shape[1]}"
            )


class WeightedLoss(Loss, ABC):
    """Multiplies the mean squared error of the x_0 estimate by weight(log-SNR)."""

    @abstractmethod
    def weight(self, log_snr: Tensor) -> Tensor:
        """Return the weights, float64, at a log-SNR within +-MAX_LOG_SNR."""

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        weight = self.per_loss(denoiser, level).to(device=x_0.device, dtype=x_0.dtype)
        return denoiser.loss(x_0, level, noise, **conditions) * weight

    def per_loss(self, denoiser: Denoiser, level: Level) -> Tensor:
        """Return what multiplies the error on the objective's own target: float64."""
        log_snr = level.log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR)
        return self.weight(log_snr) * denoiser.squared_error_per_loss(level)
