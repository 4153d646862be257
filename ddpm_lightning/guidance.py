"""Estimators made from estimators: whatever bends sampling wraps one, and no sampler knows it."""

from torch import Tensor

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import Statistics


class Conditioned:
    """Gives a denoiser the same conditions at every call.

    Args:
        conditions: for the B clips of a walk, as Denoiser.denoise_at takes them.
    """

    def __init__(self, denoiser: Denoiser, **conditions: Tensor) -> None:
        self.denoiser = denoiser
        self.conditions = conditions

    @property
    def process(self) -> GaussianProcess:
        return self.denoiser.process

    @property
    def statistics(self) -> Statistics:
        return self.denoiser.statistics

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return self.denoiser.estimate_at(x, level, **self.conditions)
