"""Which steps a sampler visits: the one place where that is chosen.

Log-SNR must fall strictly from a step to every later step of the grid, also on chains where it
rises at single steps (the median process under the hybrid schedule), and nothing beyond the first
step at the log-SNR floor is visited: no information is left there.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess

MIN_FALL = 1e-9  # of log-SNR from one usable step to the next; round-off is not a fall


def usable_steps(process: GaussianProcess) -> Tensor:
    """All t >= 1, ascending, whose log-SNR is higher than at every later step, down to the
    floor.
    """
    log_snr = process.log_snr(torch.arange(process.informative_steps() + 1))
    log_snr = log_snr[: int(log_snr.argmin()) + 1]
    highest_later = log_snr.flip(0).cummax(0).values.flip(0)[1:]
    cleaner = log_snr[:-1] > highest_later + MIN_FALL
    steps = torch.cat([cleaner, torch.ones(1, dtype=torch.bool)]).nonzero().flatten()
    steps = steps[steps > 0]
    if not len(steps):
        raise ValueError(
            "the schedule adds no noise at any step, so there is nothing to sample; "
            "choose noise=linear, cosine or hybrid"
        )
    return steps


def decreasing_grid(process: GaussianProcess, num_intervals: int) -> Tensor:
    """Steps t_0 > t_1 > .. > t_n = 0, evenly spread over the usable ones, with both ends.

    Args:
        num_intervals: n; where fewer steps are usable, all of them are walked.
    """
    steps = torch.cat([torch.zeros(1, dtype=torch.int64), usable_steps(process)])
    num_intervals = min(num_intervals, len(steps) - 1)
    last = len(steps) - 1
    index = torch.linspace(last, 0, num_intervals + 1, dtype=torch.float64).round().long()
    return steps[index]
