"""What an objective is: the pair (c_skip, c_out) between the network's output F and x_0.

    x_0 estimate = c_skip x_t + c_out F,      target = (x_0 - c_skip x_t) / c_out.

Neither assumes alpha^2 + sigma^2 = 1. Coefficients are float64, shaped like alpha and sigma, which
are both positive here: the denoiser keeps them away from 0.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor


class Scaling(NamedTuple):
    """Coefficients of x_t and of the network's output in the x_0 estimate."""

    c_skip: Tensor
    c_out: Tensor


class Objective(ABC):
    """What the network predicts."""

    @abstractmethod
    def scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        """(c_skip, c_out) at the marginal x_t | x_0 ~ N(alpha x_0, sigma^2)."""
