"""Level: how noisy a clip is.

    x = alpha x_0 + sigma noise,   noise ~ N(0, I),   log-SNR = 2 log(alpha / sigma).

A level is all that an objective, a loss weighting and a network know of a process. It is made once
(`process.level(t)`, or `Level.at(log_snr)` where there is no process) and handed on.
"""

from collections.abc import Sequence
from math import exp, log, prod
from typing import NamedTuple

from torch import Tensor

from ddpm_lightning.tensors import combine

# Conditioning and coefficients are held within +-40, beyond the floor of any clip: float32 squares
# alpha / sigma.
MAX_LOG_SNR = 40.0
VALUE_FLOOR = -12.0  # below it one value tells nothing of x_0: alpha / sigma < 0.0025


def log_snr_floor(shape: Sequence[int]) -> float:
    """Return the log-SNR below which clips (B, ...) of this shape are pure noise: -12 - log d.

    d values share a clip's mean brightness, which therefore has d times the SNR of one value.
    """
    return VALUE_FLOOR - log(prod(shape[1:]))


class Level(NamedTuple):
    """Coefficients of x = alpha x_0 + sigma noise: float64, on the CPU, () or (B,), or (B, F) where
    frames have levels of their own.
    """

    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> "Level":
        """Return the level with these coefficients; log-SNR is infinite where sigma is 0."""
        return cls(alpha, sigma, 2 * (alpha.log() - sigma.log()))

    @classmethod
    def at(cls, log_snr: Tensor) -> "Level":
        """Return the variance-preserving level, alpha^2 + sigma^2 = 1, of a log-SNR."""
        log_snr = log_snr.double()
        return cls(log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt(), log_snr)

    def bounded(self) -> "Level":
        """Return the level with log-SNR within +-MAX_LOG_SNR, the smaller coefficient raised."""
        ratio = exp(-MAX_LOG_SNR / 2)
        alpha, sigma, _ = self
        return Level.of(alpha.maximum(sigma * ratio), sigma.maximum(alpha * ratio))

    def diffuse(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """Return alpha x_0 + sigma noise.

        Args:
            x_0, noise: (B, ...), noise ~ N(0, I).
        Raises:
            ValueError: if the two differ in shape.
        """
        if noise.shape != x_0.shape:
            raise ValueError(
                f"noise must be shaped like x_0, {tuple(x_0.shape)}, got {tuple(noise.shape)}"
            )
        return combine(self.alpha, x_0, self.sigma, noise)
