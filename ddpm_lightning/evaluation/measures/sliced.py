"""Sliced Wasserstein distance of samples' features: how far they lie off along random directions.

In the units of the features, after a scale that gives them mean square 1. Unlike an MMD it is above
0 for samples of the data's own law: compare it with its floor.
"""

from functools import partial
from math import inf

from pydantic import PositiveInt

from ddpm_lightning.evaluation.distances import Distance, sliced_wasserstein
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measures.distances import PIXELS, DistanceMeasure


class SlicedWasserstein(DistanceMeasure):
    """The mean Wasserstein-1 distance of projections, of spatial and of temporal features.

    Args:
        extractor: of the features.
        num_projections: random directions.
    """

    name = "sliced"
    unit = "W_1"
    less_is_better = True

    def __init__(self, extractor: Extractor = PIXELS, num_projections: PositiveInt = 128) -> None:
        super().__init__(extractor)
        self.num_projections = num_projections

    def distances(self) -> dict[str, Distance]:
        return {"": partial(sliced_wasserstein, num_projections=self.num_projections)}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, inf
