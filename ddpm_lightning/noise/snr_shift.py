"""SNR shift: any schedule, made noisier for clips of more values (Hoogeboom et al. 2023).

Neighbouring pixels, and neighbouring frames, repeat each other, so that the same noise per value
hides less of a larger clip. log-SNR is lowered by the logarithm of the number of values of one
channel over that of a reference clip, for which the schedule was made; for frames of d x d pixels
this is the paper's 2 log(64 / d).
"""

from math import log, prod

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, betas_from_log_snr, check_max_beta
from ddpm_lightning.noise.wrapper import ScheduleWrapper


class SNRShiftSchedule(ScheduleWrapper):
    """Shifts the log-SNR of a schedule, on the standard chain.

    Args:
        size: of a frame in pixels, one number for squares or [height, width]; num_frames: of a
            clip. Likewise the reference's.
    """

    def __init__(
        self,
        num_steps: int,
        schedule: NoiseSchedule,
        size: int | list[int],
        num_frames: int,
        reference_size: int | list[int] = 64,
        reference_frames: int = 1,
        max_beta: float = 0.9999,
    ) -> None:
        super().__init__(num_steps, schedule)
        values = _num_values(size, num_frames), _num_values(reference_size, reference_frames)
        self.shift = log(values[1] / values[0])
        check_max_beta(max_beta)
        self.max_beta = max_beta

    def betas(self) -> Tensor:
        log_abar = torch.log1p(-self.schedule.betas()).cumsum(0)
        log_snr = log_abar - (-torch.expm1(log_abar)).log()  # log(abar / (1 - abar))
        return betas_from_log_snr(log_snr + self.shift, self.max_beta)


def _num_values(size: int | list[int], num_frames: int) -> int:
    count = num_frames * (size**2 if isinstance(size, int) else prod(size))
    if count < 1:
        raise ValueError(f"size and num_frames must be at least 1, got {size} and {num_frames}")
    return count
