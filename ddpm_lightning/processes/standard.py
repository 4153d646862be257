"""Standard process: the DDPM chain x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) e_t (Ho et al.
2020).

Variance preserving: alpha_t^2 + sigma_t^2 = 1.
"""

from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess


class StandardProcess(AutoregressiveProcess):
    """Each step starts from the one before it."""

    def weights(self, r: Tensor) -> Tensor:
        return r[:, None]
