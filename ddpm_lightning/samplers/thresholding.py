"""Thresholding: estimates of x_0 are held within the range of data, [-1, 1] for clips."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


class Thresholding(ABC):
    """Maps estimates to estimates within the range of data."""

    @abstractmethod
    def apply(self, x_0: Tensor) -> Tensor:
        """Return x_0 (B, ...) within bounds; the argument may be overwritten."""


class NoThresholding(Thresholding):
    """Leaves estimates as they are."""

    def apply(self, x_0: Tensor) -> Tensor:
        return x_0


@dataclass(frozen=True)
class StaticThresholding(Thresholding):
    """Clips every value to +-bound."""

    bound: float = 1.0

    def __post_init__(self) -> None:
        _check_bound(self.bound)

    def apply(self, x_0: Tensor) -> Tensor:
        return x_0.clamp_(-self.bound, self.bound)


@dataclass(frozen=True)
class DynamicThresholding(Thresholding):
    """Clips each sample to a quantile of its own magnitudes, if that is beyond the bound, and
    scales it back within (Saharia et al. 2022, Imagen).
    """

    bound: float = 1.0
    quantile: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ValueError(
                f"quantile must lie in (0, 1], got {self.quantile}; 0.995 is customary"
            )
        _check_bound(self.bound)

    def apply(self, x_0: Tensor) -> Tensor:
        magnitudes = x_0.abs().reshape(len(x_0), -1)
        rank = max(1, round(self.quantile * magnitudes.shape[1]))
        limit = magnitudes.kthvalue(rank, dim=1).values.clamp(min=self.bound)
        limit = limit.reshape(-1, *[1] * (x_0.dim() - 1))
        return x_0.clamp_(-limit, limit).mul_(self.bound / limit)


def _check_bound(bound: float) -> None:
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}; clips lie in [-1, 1]")
