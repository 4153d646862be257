"""Memorisation: does the model draw its training clips again, in content and in motion?

The probability that a sample's nearest training clip is nearer to it than a held-out clip's is: 0.5
where samples are as new as held-out clips, 1 for copies. For samples of the data's own law it is a
Mann-Whitney statistic, of mean 1/2 and variance (N + M + 1) / (12 N M).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ddpm_lightning.data.order import Sample
from ddpm_lightning.evaluation.distances import Floor
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measure import Result, around
from ddpm_lightning.evaluation.measures.distances import PIXELS, FeatureMeasure
from ddpm_lightning.evaluation.memorisation import memorisation
from ddpm_lightning.evaluation.subject import Subject

TILE_PIXELS = 48  # frames that are smaller are enlarged towards it
GAP = 6  # pixels between rows, and between what stands side by side

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


def strip(clip: Tensor) -> Tensor:
    """Return the frames of a clip (F, H, W, C) uint8 in a row, small ones enlarged, (H', W', 3)."""
    scale = max(1, TILE_PIXELS // clip.shape[1])
    frames = clip.expand(*clip.shape[:-1], 3)
    frames = frames.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    row = frames.transpose(0, 1).flatten(1, 2)  # (H', F W', 3)
    return pad(row, (0, 0, 0, GAP, 0, GAP), value=96)
