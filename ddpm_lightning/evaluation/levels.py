"""Error of a denoiser at fixed log-SNR levels: comparable across processes, schedules, objectives.

A denoiser sees a process through log-SNR alone, so that its error at one level,

    e(l) = mean |x_0 - D|^2 per value,   x = alpha x_0 + sigma noise at log-SNR l,

means the same in every run on the same clips. Its noise error is SNR e and its velocity error
(1 + SNR) e. The summary, `val/error`, is the mean over 33 levels of SNR / (1 + SNR) e, which is at
most the smaller of x_0 and noise error, so that neither end outweighs the rest.
"""

from collections.abc import Iterable
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess

LEVELS = torch.linspace(-12, 12, 33, dtype=torch.float64)
NUM_TRIPLES = 8 * len(LEVELS)  # (clip, level, noise), at least


class LevelError(NamedTuple):
    """Mean squared errors per value at a level of log-SNR, over num_triples clips with noise."""

    log_snr: float
    num_triples: int
    x_0: float
    noise: float
    velocity: float
    weighted: float  # SNR / (1 + SNR) times that of x_0


def triples_of(index: Tensor, num_clips: int) -> list[tuple[int, int]]:
    """Return (row, number) of the triples that clips take part in; number mod 33 is the level.

    A set of up to 264 clips gives each as many triples as make up at least 264; of a larger one,
    264 clips are spread evenly. They depend on a clip's place in its set alone.

    Args:
        index: (B,) of the clips in their set of num_clips.
    """
    draws = -(-NUM_TRIPLES // num_clips)
    triples = []
    for row, i in enumerate(index.tolist()):
        if draws > 1:
            triples += [(row, i * draws + k) for k in range(draws)]
        elif i * NUM_TRIPLES // num_clips != (i - 1) * NUM_TRIPLES // num_clips:
            triples.append((row, i * NUM_TRIPLES // num_clips))
    return triples


class LevelErrors:
    """Sums squared errors of the x_0 estimate at each level, on triples that are always the same.

    Args:
        num_clips: of the whole set, of which batches follow in any order, on any number of ranks.
    """

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips
        # rows: count, error, error squared; float64, on the CPU
        self.sums = torch.zeros(3, len(LEVELS), dtype=torch.float64)

    @torch.no_grad()
    def update(self, denoiser: Denoiser, x_0: Tensor, index: Tensor) -> None:
        """Add the triples of standardised clips x_0 (B, C, F, H, W) with places index (B,)."""
        triples = triples_of(index, self.num_clips)
        for first in range(0, len(triples), len(x_0)):  # no larger batches than training's
            rows, numbers = zip(*triples[first : first + len(x_0)], strict=True)
            clips = x_0[list(rows)]
            seeds = [torch.Generator().manual_seed(number) for number in numbers]
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=seed) for seed in seeds])
            at = torch.tensor(numbers) % len(LEVELS)
            level = Level.at(LEVELS[at])
            loss = denoiser.loss(clips, level, noise.to(x_0.device)).cpu().double()
            error = loss * denoiser.squared_error_per_loss(level)
            self.sums.index_add_(1, at, torch.stack([torch.ones_like(error), error, error**2]))

    def by_level(self) -> list[LevelError]:
        """Return the errors at each level that has a triple, the noisiest first."""
        errors = []
        for level, (count, error, _) in zip(LEVELS.tolist(), self.sums.T.tolist(), strict=True):
            if count:
                snr, x_0 = exp(level), error / count
                velocity = (1 + snr) * x_0
                weighted = snr / (1 + snr) * x_0
                errors.append(LevelError(level, int(count), x_0, snr * x_0, velocity, weighted))
        return errors

    def mean(self) -> float:
        """Return `val/error`: the mean of the weighted error over the levels."""
        count, error, _ = self.sums
        return float((LEVELS.sigmoid() * error / count).nanmean())

    def standard_error(self) -> float:
        """Return that of the mean, over clips and noise: NaN with fewer than 2 at a level."""
        count, error, square = self.sums
        mean = error / count
        variance = (square / count - mean.square()).clamp(min=0) / (count - 1)
        return float((LEVELS.sigmoid().square() * variance).sum().sqrt() / len(LEVELS))


def measure_levels(
    denoiser: Denoiser, batches: Iterable[Batch], num_clips: int, device: torch.device | str
) -> LevelErrors:
    """Return the errors of a denoiser in evaluation mode over batches of the num_clips clips."""
    errors = LevelErrors(num_clips)
    for batch in batches:
        x_0 = denoiser.statistics.standardise(batch.clip.to(device))
        errors.update(denoiser, x_0, batch.index)
    return errors


def covered(process: GaussianProcess, floor: float) -> Tensor:
    """Return which levels (33,) lie between the cleanest and the noisiest that are trained at."""
    axis = process.axis(floor)
    ends = torch.tensor([axis.first, axis.last], dtype=torch.float64)
    high, low = axis.log_snr(ends).tolist()
    inside: Tensor = (low <= LEVELS) & (high >= LEVELS)
    return inside
