"""Quality of samples: the polynomial MMD of their features and those of held-out clips.

The kernel (x.y / d + 1)^3 and the estimate without bias are those of KID and KVD; 0 on average for
samples of the data's own law, whatever their number.
"""

from ddpm_lightning.evaluation.distances import Distance, polynomial_mmd
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure


class Quality(DistanceMeasure):
    """The unbiased squared MMD, of spatial and of temporal features."""

    name = "quality"
    unit = "MMD^2"
    less_is_better = True

    def distances(self) -> dict[str, Distance]:
        return {"": polynomial_mmd}
