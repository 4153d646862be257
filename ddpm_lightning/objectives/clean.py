"""Clean objective: the network predicts x_0 itself."""

import torch

from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective, Scaling


class CleanObjective(Objective):
    """x_0 = F."""

    def scaling(self, level: Level) -> Scaling:
        one = torch.ones_like(level.alpha)
        return Scaling(c_skip=0 * one, c_out=one)
