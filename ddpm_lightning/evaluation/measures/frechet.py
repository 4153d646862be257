"""Frechet distance of samples' features, as in FID and FVD.

Only where clips outnumber features by far: its bias falls like features / clips.
"""

from torch import Tensor

from ddpm_lightning.evaluation.distances import Distance, frechet, wasserstein_of_gaussians
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure


class Frechet(DistanceMeasure):
    """The squared Wasserstein-2 distance of Gaussians, of spatial and of temporal features."""

    name = "frechet"
    unit = "W_2^2"
    less_is_better = True

    def distances(self) -> dict[str, Distance]:
        return {"": wasserstein_of_gaussians}  # whose interval takes parts of the clips

    def check(self, samples: Tensor, held_out: Tensor) -> None:
        frechet(samples, held_out)
