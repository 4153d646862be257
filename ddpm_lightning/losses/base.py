"""What a loss is: per-sample numbers from a denoiser, clips, times and noise.

A weighting is a function of log-SNR that multiplies the mean squared error of the x_0 estimate,
whatever the network predicts: objective and weighting are chosen apart from each other.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from ddpm_lightning.denoiser import MAX_LOG_SNR, Denoiser
from ddpm_lightning.processes.base import GaussianProcess


class Loss(ABC):
    """Per sample (B,); the caller takes the mean."""

    num_outputs = 1  # of the network per channel; 2 where it learns the variance too

    @abstractmethod
    def __call__(self, denoiser: Denoiser, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(B,) from x_0, noise (B, ...) and times t (B,)."""

    def check(self, denoiser: Denoiser, x_0: Tensor) -> None:
        """ValueError unless the network answers clips like x_0 with what the loss needs."""
        alpha, sigma = denoiser.process.marginal(1)
        learned = denoiser.estimate_at(x_0, alpha, sigma).variance_share is not None
        if learned != (self.num_outputs == 2):
            raise ValueError(
                f"this loss needs network.outputs={self.num_outputs}, "
                f"got {2 if learned else 1} from the network per channel"
            )


class WeightedLoss(Loss, ABC):
    """weight(log-SNR) times the mean squared error of the x_0 estimate."""

    @abstractmethod
    def weight(self, log_snr: Tensor) -> Tensor:
        """(B,), float64."""

    def __call__(self, denoiser: Denoiser, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return denoiser.loss(x_0, t, noise) * self.per_loss(denoiser, t).to(
            device=x_0.device, dtype=x_0.dtype
        )

    def per_loss(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """(B,), float64: what multiplies the error on the objective's own target."""
        return self.weight(bounded_log_snr(denoiser.process, t)) * denoiser.squared_error_per_loss(
            t
        )


def bounded_log_snr(process: GaussianProcess, t: Tensor) -> Tensor:
    """As the network sees it."""
    return process.log_snr(t).clamp(-MAX_LOG_SNR, MAX_LOG_SNR)
