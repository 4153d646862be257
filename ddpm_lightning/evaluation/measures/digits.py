"""Known answers for moving digits: what a network's samples keep of a law that is known exactly.

One measure for each question. Beside each stands what held-out clips score, at as many clips as
there are samples.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.evaluation.digits import agreement, bounce_error, read_as, speed_deviation
from ddpm_lightning.evaluation.distances import Floor
from ddpm_lightning.evaluation.measure import OF_SAMPLES, Measure, Result, around
from ddpm_lightning.evaluation.subject import Subject


class DigitMeasure(Measure):
    """A mean over clips of moving digits."""

    of_samples = True
    comparable_across = OF_SAMPLES

    def __call__(self, subject: Subject) -> dict[str, Result]:
        reference = subject.reference
        if not isinstance(getattr(reference.data, "source", None), MovingDigits):
            raise ValueError("the law of moving digits is that of data=moving_digits alone")
        self.check(subject)
        fps, num_clips = reference.data.format.fps, len(reference.held_out)
        known = [reference.held_out.annotation(i) for i in range(num_clips)]
        real, real_error = self.mean(reference.clips("val"), known, fps)
        value, error = self.mean(subject.samples, subject.asked, fps)
        num_samples = len(subject.samples)
        std = real_error * (1 + num_clips / num_samples) ** 0.5  # of both means
        return {
            "mean": Result(
                value,
                error,
                around(value, error),
                Floor(real, std, *around(real, std)),
                {"num_clips": num_clips},
            )
        }

    def check(self, subject: Subject) -> None:
        """Raise ValueError, in one line, for a run that cannot be measured so."""

    @abstractmethod
    def mean(
        self, clips: Tensor, annotations: Sequence[Annotation], fps: float
    ) -> tuple[float, float]:
        """Return the mean over clips (N, F, H, W, C) uint8 and its standard error.

        Args:
            annotations: what is known, or was asked, of each clip.
        """


class DigitAgreement(DigitMeasure):
    """The probability that two frames of a clip show the same digit."""

    name = "digit_agreement"
    unit = "probability"
    less_is_better = False

    def mean(
        self, clips: Tensor, annotations: Sequence[Annotation], fps: float
    ) -> tuple[float, float]:
        return agreement(clips)


class DigitLabel(DigitMeasure):
    """The share of clips that most of their frames show as the digit that was asked for."""

    name = "digit_label"
    unit = "share of clips"
    less_is_better = False

    def check(self, subject: Subject) -> None:
        if "label" not in subject.denoiser.conditions.wishes:
            raise ValueError("samples show what was asked for where the run has condition=label")

    def mean(
        self, clips: Tensor, annotations: Sequence[Annotation], fps: float
    ) -> tuple[float, float]:
        return read_as(clips, torch.tensor([int(known["label"]) for known in annotations]))


class DigitSpeed(DigitMeasure):
    """How far a digit's speed is from constant."""

    name = "digit_speed"
    unit = "pixels a frame"
    less_is_better = True

    def mean(
        self, clips: Tensor, annotations: Sequence[Annotation], fps: float
    ) -> tuple[float, float]:
        return speed_deviation(clips, fps)


class DigitBounce(DigitMeasure):
    """How far a digit is from a path that bounces at the walls."""

    name = "digit_bounce"
    unit = "pixels"
    less_is_better = True

    def mean(
        self, clips: Tensor, annotations: Sequence[Annotation], fps: float
    ) -> tuple[float, float]:
        return bounce_error(clips, fps)
