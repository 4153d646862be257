"""Known answers for moving digits: what a network's samples keep of a law that is known exactly.

One measure for each question. Beside each stands what held-out clips score, at as many clips as
there are samples.
"""

from abc import abstractmethod

from torch import Tensor

from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.evaluation.digits import agreement, bounce_error, speed_deviation
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
        fps = reference.data.format.fps
        real, real_error = self.mean(reference.clips("val"), fps)
        value, error = self.mean(subject.samples, fps)
        num_clips, num_samples = len(reference.held_out), len(subject.samples)
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

    @abstractmethod
    def mean(self, clips: Tensor, fps: float) -> tuple[float, float]:
        """Return the mean over clips (N, F, H, W, C) uint8 and its standard error."""


class DigitAgreement(DigitMeasure):
    """The probability that two frames of a clip show the same digit."""

    name = "digit_agreement"
    unit = "probability"
    less_is_better = False

    def mean(self, clips: Tensor, fps: float) -> tuple[float, float]:
        return agreement(clips)


class DigitSpeed(DigitMeasure):
    """How far a digit's speed is from constant."""

    name = "digit_speed"
    unit = "pixels a frame"
    less_is_better = True

    def mean(self, clips: Tensor, fps: float) -> tuple[float, float]:
        return speed_deviation(clips, fps)


class DigitBounce(DigitMeasure):
    """How far a digit is from a path that bounces at the walls."""

    name = "digit_bounce"
    unit = "pixels"
    less_is_better = True

    def mean(self, clips: Tensor, fps: float) -> tuple[float, float]:
        return bounce_error(clips, fps)
