"""Min-SNR weighting (Hang et al. 2023): noise levels near the data count no more than gamma."""

from torch import Tensor

from ddpm_lightning.losses.base import WeightedLoss


class MinSNRLoss(WeightedLoss):
    """Weighs by min(SNR, gamma)."""

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}; 5 is customary")
        self.gamma = gamma

    def weight(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)
