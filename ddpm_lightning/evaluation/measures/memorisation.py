"""Memorisation: does the model draw its training clips again, in content and in motion?

The probability that a sample's nearest training clip is nearer to it than a held-out clip's is: 0.5
where samples are as new as held-out clips, 1 for copies. For samples of the data's own law it is a
Mann-Whitney statistic, of mean 1/2 and variance (N + M + 1) / (12 N M).
"""

import numpy as np
import torch

from ddpm_lightning.data.order import Sample
from ddpm_lightning.evaluation.distances import Floor
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measure import Result, around
from ddpm_lightning.evaluation.measures.distances import PIXELS, FeatureMeasure
from ddpm_lightning.evaluation.memorisation import memorisation
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.plots.stills import strip

KINDS = {"content": "spatial", "motion": "temporal"}


class Memorisation(FeatureMeasure):
    """The probability of being nearer to the training set than a held-out clip, all of that set.

    Args:
        extractor: of the features in which clips are near.
        num_shown: samples in the picture, those nearest to a training clip in content, each beside
            that clip.
    """

    name = "memorisation"
    unit = "probability"
    less_is_better = None  # 0.5 is right

    def __init__(self, extractor: Extractor = PIXELS, num_shown: int = 8) -> None:
        super().__init__(extractor)
        self.num_shown = num_shown

    def __call__(self, subject: Subject) -> dict[str, Result]:
        samples, train, held_out = self.features(subject, None)
        n, m = len(samples.spatial), len(held_out.spatial)
        std = ((n + m + 1) / (12 * n * m)) ** 0.5
        floor = Floor(0.5, std, *around(0.5, std, 0.0, 1.0))
        results = {}
        for name, kind in KINDS.items():
            answer = memorisation(*(getattr(part, kind) for part in (samples, train, held_out)))
            error = answer.standard_error
            nearest = answer.distances.argsort()[: self.num_shown]
            results[name] = Result(
                answer.value,
                error,
                around(answer.value, error, 0.0, 1.0),
                floor,
                {
                    "num_clips": m,
                    "num_train": len(train.spatial),
                    "nearest": [  # sample, training clip, their distance
                        [i, int(answer.nearest[i]), float(answer.distances[i])]
                        for i in nearest.tolist()
                    ],
                },
            )
        return results

    def picture(self, subject: Subject, results: dict[str, Result]) -> np.ndarray:
        """Return rows of a sample's frames, left, beside those of its nearest training clip."""
        rows = []
        for sample, clip, _ in results["content"].facts["nearest"]:
            other = subject.reference.train.__getitems__([Sample(clip, clip)]).clip[0]
            rows.append(torch.cat([strip(subject.samples[sample]), strip(other)], dim=1))
        return torch.cat(rows).numpy()
