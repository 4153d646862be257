"""Median process: an AR(2) forward chain that starts each step from the mean of the two before it.

    x_t = sqrt(1 - beta_t) (x_{t-1} + x_{t-2}) / 2 + sqrt(beta_t) e_t,   x_{-1} = x_0.

Not variance preserving: sigma_t^2 tends to 2/3 for small constant beta. The midpoint
u_{t-1} = (x_{t-1} + x_{t-2}) / 2 is what one step starts from; given u_{t-1} and x_0, x_t is
independent of x_{t-2}, so that x_t -> u_{t-1} -> x_{t-2} walks two steps of the chain with one
estimate of x_0.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import gaussian_condition


class MedianProcess(AutoregressiveProcess):
    """Each step starts from the midpoint of the two before it."""

    def weights(self, r: Tensor) -> Tensor:
        return torch.stack([r / 2, r / 2], dim=1)

    def condition_midpoint(
        self, x_0: Tensor, x_t: Tensor, t: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """Mean and std of u_{t-1} = (x_{t-1} + x_{t-2}) / 2 given x_t and x_0.

        Args:
            x_0, x_t: (B, ...).   t: steps, 1 <= t; u_0 is x_0.
        Returns:
            mean (B, ...), std shaped to broadcast against it.
        DDPM's posterior (Ho et al. 2020, eq. 6-7) with u_{t-1} in the place of x_{t-1}.
        """
        t = self._step(t)
        a, b = t - 1, (t - 2).clamp(min=0)  # x_{-1} = x_0
        alpha_u = (self.marginal(a).alpha + self.marginal(b).alpha) / 2
        variance_u = (self.covariance(a, a) + 2 * self.covariance(a, b) + self.covariance(b, b)) / 4
        covariance = (self.covariance(a, t) + self.covariance(b, t)) / 2
        return gaussian_condition(
            x_0,
            x_t,
            self.marginal(t),
            alpha_s=alpha_u,
            variance_s=variance_u,
            covariance=covariance,
        )
