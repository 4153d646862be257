"""Median process: an AR(2) forward chain that starts each step from the mean of the two before it.

    x_t = sqrt(1 - beta_t) (x_{t-1} + x_{t-2}) / 2 + sqrt(beta_t) e_t,   x_{-1} = x_0.

Not variance preserving: sigma_t^2 tends to 2/3 for small constant beta. The midpoint
u_{t-1} = (x_{t-1} + x_{t-2}) / 2 is what one step starts from, so that `to_origin` is DDPM's
posterior (Ho et al. 2020, eq. 6-7) with u_{t-1} in the place of x_{t-1}. Given u_{t-1} and x_0, x_t
is independent of x_{t-2}, so that x_t -> u_{t-1} -> x_{t-2} walks two steps of the chain with one
estimate of x_0.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess


class MedianProcess(AutoregressiveProcess):
    """Each step starts from the midpoint of the two before it."""

    def weights(self, r: Tensor) -> Tensor:
        return torch.stack([r / 2, r / 2], dim=1)
