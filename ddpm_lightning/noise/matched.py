"""Matched schedule: the standard chain with the log-SNR of any other process, step by step.

Where that one's log-SNR rises (the median chain under hybrid noise) its running minimum is taken.
Training the standard process under it separates what a process does to the noise levels from what
it does to sampling.
"""

from typing import Protocol

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, betas_from_log_snr, check_max_beta


class HasLogSNR(Protocol):
    """The part of a process's contract that a schedule needs to match it."""

    num_steps: int

    def log_snr(self, t: Tensor) -> Tensor: ...


class MatchedSchedule(NoiseSchedule):
    """beta_t with abar_t / (1 - abar_t) equal to the process's SNR at t; clipped at max_beta."""

    def __init__(self, num_steps: int, process: HasLogSNR, max_beta: float = 0.999999) -> None:
        super().__init__(num_steps)
        if process.num_steps != num_steps:
            raise ValueError(
                f"num_steps={num_steps} must be that of the process to match, "
                f"got {process.num_steps}"
            )
        check_max_beta(max_beta)
        self.process = process
        self.max_beta = max_beta

    def betas(self) -> Tensor:
        log_snr = self.process.log_snr(torch.arange(1, self.num_steps + 1))
        return betas_from_log_snr(log_snr.cummin(0).values, self.max_beta)
