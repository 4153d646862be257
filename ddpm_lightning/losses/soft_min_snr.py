"""Soft min-SNR weighting (Crowson et al. 2024, Hourglass Diffusion Transformers)."""

from torch import Tensor

from ddpm_lightning.losses.base import WeightedLoss


class SoftMinSNRLoss(WeightedLoss):
    """Weighs by SNR gamma / (SNR + gamma): min-SNR without the corner."""

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}; 5 is customary")
        self.gamma = gamma

    def weight(self, log_snr: Tensor) -> Tensor:
        return 1 / ((-log_snr).exp() + 1 / self.gamma)
