"""Zero terminal SNR: any schedule, rescaled to end without signal (Lin et al. 2024, alg. 1).

    alpha'_t = alpha_1 (alpha_t - alpha_T) / (alpha_1 - alpha_T)

on the standard chain. The last beta would be 1; it is clipped at max_beta, so that a chain is left.
"""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, betas_from_cumulative, check_max_beta
from ddpm_lightning.noise.wrapper import ScheduleWrapper


class ZeroTerminalSNRSchedule(ScheduleWrapper):
    """Shifts and stretches a schedule so that almost nothing of x_0 is left at T."""

    def __init__(self, num_steps: int, schedule: NoiseSchedule, max_beta: float = 0.999999) -> None:
        super().__init__(num_steps, schedule)
        check_max_beta(max_beta)
        self.max_beta = max_beta

    def betas(self) -> Tensor:
        alpha = (1 - self.schedule.betas()).sqrt().cumprod(0)
        if self.num_steps > 1:
            alpha = alpha[0] * (alpha - alpha[-1]) / (alpha[0] - alpha[-1])
        cumulative = torch.cat([torch.ones(1, dtype=torch.float64), alpha.square()])
        return betas_from_cumulative(cumulative, self.max_beta)
