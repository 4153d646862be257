"""P2 weighting (Choi et al. 2022): levels that are almost clean count less."""

from torch import Tensor

from ddpm_lightning.losses.base import WeightedLoss


class P2Loss(WeightedLoss):
    """Weighs an error of the noise by 1 / (k + SNR)^gamma, that of x_0 by SNR times as much."""

    def __init__(self, gamma: float = 1.0, k: float = 1.0) -> None:
        if not (gamma >= 0 and k > 0):
            raise ValueError(
                f"gamma must be 0 or more and k positive, got {gamma} and {k}; 1 and 1 are usual"
            )
        self.gamma, self.k = gamma, k

    def weight(self, log_snr: Tensor) -> Tensor:
        snr = log_snr.exp()
        return snr * (self.k + snr).pow(-self.gamma)
