"""Frechet distance of samples' features, as in FID and FVD.

Only where clips outnumber features by far: its bias falls like features / clips.
"""

from math import inf

from ddpm_lightning.evaluation.distances import Distance, wasserstein_of_gaussians
from ddpm_lightning.evaluation.features.base import Features
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure

CLIPS_PER_FEATURE = 5  # below it the bias is as large as what it measures


class Frechet(DistanceMeasure):
    """The squared Wasserstein-2 distance of Gaussians, of spatial and of temporal features."""

    name = "frechet"
    unit = "W_2^2"
    less_is_better = True

    def distances(self) -> dict[str, Distance]:
        return {"": wasserstein_of_gaussians}  # whose interval takes parts of the clips

    def check(self, num_samples: int, held_out: Features) -> None:
        for features in held_out:
            fewest = CLIPS_PER_FEATURE * features.shape[1]
            if (num_clips := min(num_samples, len(features))) < fewest:
                raise ValueError(
                    f"a Frechet distance of {features.shape[1]} features needs "
                    f"{CLIPS_PER_FEATURE} times as many clips, {fewest}, got {num_clips}; use "
                    "measure=quality, which has no such bias"
                )

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, inf
