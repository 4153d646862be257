"""Subjects whose samples are known."""

from torch import Tensor

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.denoiser import Denoiser, Estimator
from ddpm_lightning.evaluation.subject import Reference, Subject
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point, Walk
from tests.problems import FixedOutput


class Known(Sampler):
    """Gives clips (N, F, H, W, C) uint8 in their order, whatever the noise is."""

    order, stochastic = 1, False

    def __init__(self, clips: Tensor) -> None:
        super().__init__(num_evaluations=1)
        self.clips = to_float(clips)
        self.given = 0

    def sample(self, denoiser: Estimator, shape: tuple[int, ...], **_: object) -> Tensor:
        first, self.given = self.given, self.given + shape[0]
        return self.clips[first : self.given]

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        raise AssertionError


def denoiser() -> Denoiser:
    """Return one whose network always answers 0."""
    process = StandardProcess(CosineSchedule(100))
    return Denoiser(FixedOutput(0.0), process, VelocityObjective())


def subject_of(clips: Tensor, reference: Reference) -> Subject:
    """Return a subject whose samples are the clips."""
    return Subject(denoiser(), reference, sampler=Known(clips), num_samples=len(clips))
