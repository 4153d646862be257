"""Clean objective: the network predicts x_0 itself."""

import torch
from torch import Tensor

from ddpm_lightning.objectives.base import Objective, Scaling


class CleanObjective(Objective):
    """x_0 = F."""

    def scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        return Scaling(c_skip=torch.zeros_like(alpha), c_out=torch.ones_like(alpha))
