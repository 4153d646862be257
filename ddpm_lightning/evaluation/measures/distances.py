"""What all distances between samples and held-out clips share.

Each is measured twice, of the spatial and of the temporal features of an extractor: a sampler can
draw the right frames in the wrong order. Beside each stands the floor: what as many real clips in
the place of the samples score against as many others, training and held-out clips drawn together.
"""

from abc import abstractmethod
from math import inf

import torch
from torch import Tensor

from ddpm_lightning.evaluation.distances import Distance, Floor, Scale, floor, interval
from ddpm_lightning.evaluation.features.base import Extractor, Features
from ddpm_lightning.evaluation.features.pixels import Pixels
from ddpm_lightning.evaluation.measure import OF_SAMPLES, Measure, Result, around
from ddpm_lightning.evaluation.subject import Reference, Subject

PIXELS = Pixels()
MIN_CLIPS = 32  # samples, and held-out clips
MAX_REAL = 4096  # training clips, or as many as samples, of which scale and floor are made


def refuse_too_few(reference: Reference, num_samples: int) -> None:
    """Raise ValueError unless samples, held-out and training clips suffice to be compared."""
    train, held_out = reference.train, reference.held_out
    if num_samples < MIN_CLIPS:
        raise ValueError(f"num_samples={num_samples} is too few to measure: {MIN_CLIPS} or more")
    if set(held_out.indices) & set(train.indices):
        raise ValueError(
            f"no clip is held out: {len(held_out)} clips both train and validate; samples are "
            "compared with others, so train with data.val_fraction above 0"
        )
    if len(held_out) < MIN_CLIPS:
        raise ValueError(
            f"{len(held_out)} clips are held out, at least {MIN_CLIPS} are needed; more GIFs or a "
            "larger data.val_fraction in training give more"
        )
    if len(train) < num_samples:
        raise ValueError(
            f"{num_samples} samples are compared with real clips in their place, but there are "
            f"{len(train)} training clips; set num_samples to that or less"
        )


class FeatureMeasure(Measure):
    """Compares features of samples with those of clips.

    Args:
        extractor: of the features.
    """

    of_samples = True
    comparable_across = OF_SAMPLES

    def __init__(self, extractor: Extractor = PIXELS) -> None:
        self.extractor = extractor

    def features(self, subject: Subject, max_train: int | None) -> tuple[Features, ...]:
        """Return the features of samples, training clips and held-out clips.

        Args:
            max_train: training clips that are drawn; None: all.
        Raises:
            ValueError: see of_clips.
        """
        num_samples, device = subject.num_samples, subject.device
        train, held_out = self.of_clips(subject.reference, num_samples, device, max_train)
        return subject.features(self.extractor), train, held_out

    def of_clips(
        self,
        reference: Reference,
        num_samples: int,
        device: torch.device | str,
        max_train: int | None = MAX_REAL,
    ) -> tuple[Features, Features]:
        """Return the features of training clips and of held-out ones.

        Raises:
            ValueError: see refuse_too_few; and for clips that the extractor cannot take.
        """
        refuse_too_few(reference, num_samples)
        held_out = reference.features(self.extractor, "val", None, device)
        self.check(num_samples, held_out)
        return reference.features(self.extractor, "train", max_train, device), held_out

    def check(self, num_samples: int, held_out: Features) -> None:
        """Raise ValueError, before samples are drawn, where there are too few clips."""


class DistanceMeasure(FeatureMeasure):
    """Numbers of two sets of features, whose scale is that of training clips.

    num_subsamples: of which the interval and the floor are made.
    """

    num_subsamples = 200

    def __init__(self, extractor: Extractor = PIXELS) -> None:
        super().__init__(extractor)
        # by clips, name and number of samples: the same for all samplers of a curve
        self._floors: dict[tuple[Reference, str, int], Floor] = {}

    def __call__(self, subject: Subject) -> dict[str, Result]:
        sets = self.features(subject, max(MAX_REAL, subject.num_samples))
        results: dict[str, Result] = {}
        for kind in Features._fields:
            samples, train, held_out = (getattr(features, kind) for features in sets)
            scale = Scale.of(train)
            for name, distance in self.distances().items():
                full_name = f"{kind}_{name}" if name else kind
                key = subject.reference, full_name, len(samples)
                scaled = scale(samples), scale(train), scale(held_out)
                results[full_name] = self._compared(name, distance, *scaled, self._floors.get(key))
                if (real := results[full_name].floor) is not None:
                    self._floors[key] = real
        return results

    def bounds(self, name: str) -> tuple[float, float]:
        """Return between which values a number lies."""
        return -inf, inf

    @abstractmethod
    def distances(self) -> dict[str, Distance]:
        """Return the functions of samples (N, d) and held-out clips (M, d), by name; the only one
        has the name "".
        """

    def _compared(
        self,
        name: str,
        distance: Distance,
        samples: Tensor,
        train: Tensor,
        held_out: Tensor,
        real: Floor | None,
    ) -> Result:
        estimate = interval(distance, samples, held_out, self.num_subsamples)
        sizes = len(samples), len(held_out)
        return Result(
            estimate.value,
            estimate.standard_error,
            around(estimate.value, estimate.standard_error, *self.bounds(name)),
            real or floor(distance, torch.cat([train, held_out]), *sizes, self.num_subsamples),
            {"num_clips": len(held_out), "num_features": samples.shape[1]},
        )
