"""What an objective is: the pair (c_skip, c_out) between the network's output F and x_0.

    x_0 estimate = c_skip x_t + c_out F,      target = (x_0 - c_skip x_t) / c_out.

Neither assumes alpha^2 + sigma^2 = 1. Coefficients are float64, shaped like alpha and sigma, which
are both positive here: the denoiser keeps them away from 0.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from ddpm_lightning.level import Level


class Scaling(NamedTuple):
    """Coefficients of x_t and of the network's output in the x_0 estimate."""

    c_skip: Tensor
    c_out: Tensor


class Objective(ABC):
    """Defines what the network predicts."""

    @abstractmethod
    def scaling(self, level: Level) -> Scaling:
        """Return (c_skip, c_out) at a level whose alpha and sigma are positive."""
