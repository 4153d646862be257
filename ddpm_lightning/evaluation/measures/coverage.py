"""Do samples look like clips, and do they look like all of them? Two pairs of answers.

Precision and density ask the first, recall and coverage the second, by balls that reach from each
clip to its k-th neighbour. A perfect model does not score 1: see the floor.
"""

from functools import partial
from math import inf

from pydantic import PositiveInt
from torch import Tensor

from ddpm_lightning.evaluation.distances import (
    Distance,
    Manifold,
    precision_recall_density_coverage,
)
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measures.distances import PIXELS, DistanceMeasure


class Coverage(DistanceMeasure):
    """Precision, recall, density and coverage, of spatial and of temporal features.

    Args:
        extractor: of the features.
        k: neighbours of a clip that its ball reaches.
    """

    name = "coverage"
    unit = "share"
    less_is_better = False
    num_subsamples = 50  # each takes ten times as long as one of an MMD

    def __init__(self, extractor: Extractor = PIXELS, k: PositiveInt = 5) -> None:
        super().__init__(extractor)
        self.k = k

    def distances(self) -> dict[str, Distance]:
        def part(x: Tensor, y: Tensor, name: str) -> float:
            return float(getattr(precision_recall_density_coverage(x, y, self.k), name))

        return {name: partial(part, name=name) for name in Manifold._fields}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, inf if name == "density" else 1.0
