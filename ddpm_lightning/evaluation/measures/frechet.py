"""Frechet distance of samples' features, as in FID and FVD.

Only where clips outnumber features by far: its bias falls like features / clips.
"""

from math import inf

from ddpm_lightning.evaluation.distances import (
    Distance,
    refuse_few_per_feature,
    wasserstein_of_gaussians,
)
from ddpm_lightning.evaluation.features.base import Features
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure


class Frechet(DistanceMeasure):
    """The squared Wasserstein-2 distance of Gaussians, of spatial and of temporal features."""

    name = "frechet"
    unit = "W_2^2"
    less_is_better = True

    def distances(self) -> dict[str, Distance]:
        return {"": wasserstein_of_gaussians}  # whose interval takes parts of the clips

    def check(self, num_samples: int, held_out: Features) -> None:
        for features in held_out:
            refuse_few_per_feature(min(num_samples, len(features)), features.shape[1])

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, inf
