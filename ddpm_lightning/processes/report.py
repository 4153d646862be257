"""What a process and schedule do, in figures: for a table, and for one line of warning."""

from collections.abc import Sequence
from math import exp, prod
from typing import NamedTuple

import torch

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import DATA_STD

FLOAT32_TINY = float(torch.finfo(torch.float32).tiny)
WIDE = 10.0  # beyond +-10 of log-SNR there is little to learn
LEFT_OVER = 0.1  # nats a clip that the prior may miss


class ProcessReport(NamedTuple):
    """Describes a process at its integer steps t = 1..T.

    Args:
        num_rises: steps at which log-SNR rises.   num_zero_betas: steps without noise.
        num_underflows: steps at which alpha is below float32's smallest normal number.
        log_snr_first, log_snr_last: at t = 1 and T.
        crossing: the last step at which SNR is 1 or more; 0 where there is none.
        wide_share: of steps with log-SNR outside +-10.
        terminal_nats: divergence of x_T from the prior, of a whole clip.
        num_usable: steps on which a sampler may stop, down to the log-SNR floor.
        floor: of log-SNR, for the clips of the run.
    """

    num_steps: int
    num_rises: int
    num_zero_betas: int
    num_underflows: int
    log_snr_first: float
    log_snr_last: float
    crossing: int
    wide_share: float
    terminal_nats: float
    num_usable: int
    floor: float

    def __str__(self) -> str:
        """Return the report in one line."""
        where = f"SNR 1 at t = {self.crossing}" if self.crossing else "SNR below 1 throughout"
        return (
            f"{self.num_steps:,} steps, log-SNR {self.log_snr_first:.1f} to "
            f"{self.log_snr_last:.1f}, {where}; samplers can use {self.num_usable:,}, down to "
            f"{self.floor:.1f}"
        )

    @property
    def warnings(self) -> list[str]:
        """Return what a user should know before training, most important first."""
        warnings = []
        if self.terminal_nats > LEFT_OVER:
            warnings.append(
                f"the prior misses {self.terminal_nats:.2g} nats a clip of what is left of x_0 at "
                f"t={self.num_steps} (log-SNR {self.log_snr_last:.1f})"
            )
        if self.num_rises:
            warnings.append(f"log-SNR rises at {self.num_rises} of {self.num_steps - 1} steps")
        if self.num_zero_betas:
            warnings.append(f"{self.num_zero_betas} of {self.num_steps} betas are 0")
        if self.num_underflows:
            warnings.append(
                f"alpha underflows float32 at {self.num_underflows} steps (tables do not)"
            )
        if self.num_usable < self.num_steps / 2:
            warnings.append(
                f"samplers can use {self.num_usable} steps, those of falling log-SNR above "
                f"{self.floor:.1f}"
            )
        return warnings


def describe(process: GaussianProcess, shape: Sequence[int]) -> ProcessReport:
    """Return the figures of a process for standardised clips (B, ...) of a shape.

    Raises:
        ValueError: where nothing can be sampled, because the schedule adds no noise.
    """
    floor = log_snr_floor(shape)
    t = torch.arange(1, process.num_steps + 1)
    alpha, _, log_snr = process.level(t)
    above = (log_snr >= 0).nonzero()
    return ProcessReport(
        num_steps=process.num_steps,
        num_rises=int((log_snr.diff() > 0).sum()),
        num_zero_betas=process.num_zero_betas,
        num_underflows=int((alpha < FLOAT32_TINY).sum()),
        log_snr_first=float(log_snr[0]),
        log_snr_last=float(log_snr[-1]),
        crossing=int(t[above[-1]]) if len(above) else 0,
        wide_share=float((log_snr.abs() > WIDE).double().mean()),
        terminal_nats=prod(shape[1:]) * DATA_STD**2 / 2 * exp(float(log_snr[-1])),
        num_usable=int(process.axis(floor).num_steps),
        floor=floor,
    )
