"""Error of a denoiser at fixed log-SNR levels: comparable across processes, schedules, objectives.

A denoiser sees a process through log-SNR alone, so that its error at one level,

    e(l) = mean |x_0 - D|^2 per value,   x = alpha x_0 + sigma noise at log-SNR l,

means the same in every run on the same clips. Its noise error is SNR e and its velocity error
(1 + SNR) e. The summary, `val/error`, is the mean over 33 levels of SNR / (1 + SNR) e, which is at
most the smaller of x_0 and noise error, so that neither end outweighs the rest.
"""

from collections.abc import Iterable
from math import exp, nan
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling

LEVELS = torch.linspace(-12, 12, 33, dtype=torch.float64)
NUM_TRIPLES = 8 * len(LEVELS)  # (clip, level, noise), at least
VALUES_AT_ONCE = 2**14  # small clips share a call, whose fixed costs are those of as many values


class LevelError(NamedTuple):
    """Mean squared errors per value at a level of log-SNR, over num_triples clips with noise."""

    log_snr: float
    num_triples: int
    x_0: float
    noise: float
    velocity: float
    weighted: float  # SNR / (1 + SNR) times that of x_0


def num_draws(num_clips: int) -> int:
    """Return how many triples each of so many clips takes part in, at most."""
    return -(-NUM_TRIPLES // num_clips)


def triples_of(index: Tensor, num_clips: int) -> list[tuple[int, int]]:
    """Return (row, number) of the triples that clips take part in; number mod 33 is the level.

    A set of up to 264 clips gives each as many triples as make up at least 264; of a larger one,
    264 clips are spread evenly. They depend on a clip's place in its set alone.

    Args:
        index: (B,) of the clips in their set of num_clips.
    """
    draws = num_draws(num_clips)
    triples = []
    for row, i in enumerate(index.tolist()):
        if draws > 1:
            triples += [(row, i * draws + k) for k in range(draws)]
        elif i * NUM_TRIPLES // num_clips != (i - 1) * NUM_TRIPLES // num_clips:
            triples.append((row, i * NUM_TRIPLES // num_clips))
    return triples


class LevelErrors:
    """Collects squared errors of the x_0 estimate, on triples that are always the same.

    Args:
        num_clips: of the whole set, of which batches follow in any order, on any number of ranks.
    """

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips
        draws = num_draws(num_clips)
        num_triples = draws * num_clips if draws > 1 else NUM_TRIPLES
        # rows: count, error; float64, on the CPU; ranks add theirs up
        self.sums = torch.zeros(2, num_triples, dtype=torch.float64)
        # a clip, its conditions and the number of its triple
        self._waiting: list[tuple[Tensor, dict[str, Tensor], int]] = []
        self._batch_size = 0

    def update(self, denoiser: Denoiser, x_0: Tensor, index: Tensor, **conditions: Tensor) -> None:
        """Add the triples of standardised clips x_0 (B, C, F, H, W) with places index (B,).

        They are measured B at a time, or more of small clips, so that a compiled network sees one
        batch size.
        """
        self._batch_size = max(self._batch_size, len(x_0), VALUES_AT_ONCE // x_0[0].numel())
        for row, number in triples_of(index, self.num_clips):
            own = {name: value[row] for name, value in conditions.items()}
            self._waiting.append((x_0[row], own, number))
        while len(self._waiting) >= self._batch_size:
            self._measure(denoiser, self._waiting[: self._batch_size])
            del self._waiting[: self._batch_size]

    def finish(self, denoiser: Denoiser) -> None:
        """Measure what is left of the triples, in a batch that repeats the last one."""
        if self._waiting:
            missing = self._batch_size - len(self._waiting)
            self._measure(denoiser, self._waiting + self._waiting[-1:] * missing)
            self._waiting = []

    @torch.no_grad()
    def _measure(
        self, denoiser: Denoiser, triples: list[tuple[Tensor, dict[str, Tensor], int]]
    ) -> None:
        rows, own, numbers = zip(*triples, strict=True)
        clips = torch.stack(rows)
        conditions = {name: torch.stack([values[name] for values in own]) for name in own[0]}
        seeds = [torch.Generator().manual_seed(number) for number in numbers]
        noise = torch.stack([torch.randn(clips.shape[1:], generator=seed) for seed in seeds])
        at = torch.tensor(numbers)
        level = Level.at(LEVELS[at % len(LEVELS)])
        loss = denoiser.loss(clips, level, noise.to(clips.device), **conditions).cpu().double()
        error = loss * denoiser.squared_error_per_loss(level)
        self.sums.index_add_(1, at, torch.stack([torch.ones_like(error), error]))

    def _triples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return level (N,), clip (N,) and error (N,) of the triples that were measured."""
        count, total = self.sums
        (number,) = count.nonzero(as_tuple=True)
        draws = num_draws(self.num_clips)
        return number % len(LEVELS), number // draws, total[number] / count[number]

    def by_level(self) -> list[LevelError]:
        """Return the errors at each level that has a triple, the noisiest first."""
        at, _, error = self._triples()
        errors = []
        for i, level in enumerate(LEVELS.tolist()):
            if num_triples := int((at == i).sum()):
                snr, x_0 = exp(level), float(error[at == i].mean())
                velocity, weighted = (1 + snr) * x_0, snr / (1 + snr) * x_0
                errors.append(LevelError(level, num_triples, x_0, snr * x_0, velocity, weighted))
        return errors

    def mean(self) -> float:
        """Return `val/error`, the mean over levels of the weighted error: NaN if any error is."""
        weighted = [row.weighted for row in self.by_level()]
        return sum(weighted) / len(weighted)

    def standard_error(self) -> float:
        """Return that of the mean, over clips and noise: NaN with fewer than 2 clips.

        A clip that is hard at one level is so at others: its triples are taken together (the
        variance of a mean of clusters).
        """
        at, clip, error = self._triples()
        count = torch.bincount(at, minlength=len(LEVELS)).clamp(min=1)
        mean = torch.zeros(len(LEVELS), dtype=torch.float64).index_add_(0, at, error) / count
        share = LEVELS.sigmoid()[at] / count[at] / len(at.unique())
        _, of_clip = clip.unique(return_inverse=True)
        num_clips = int(of_clip.max()) + 1
        if num_clips < 2:
            return nan
        sums = torch.zeros(num_clips, dtype=torch.float64)
        sums.index_add_(0, of_clip, share * (error - mean[at]))
        return float((num_clips / (num_clips - 1) * sums.square().sum()).sqrt())


def measure_levels(
    denoiser: Denoiser, batches: Iterable[Batch], num_clips: int, device: torch.device | str
) -> LevelErrors:
    """Return the errors of a denoiser in evaluation mode over batches of the num_clips clips."""
    errors = LevelErrors(num_clips)
    for batch in batches:
        x_0 = denoiser.statistics.standardise(batch.clip.to(device))
        conditions = denoiser.conditions.encode(batch.annotations)
        errors.update(denoiser, x_0, batch.index, **conditions)
    errors.finish(denoiser)
    return errors


def covered(process: GaussianProcess, times: TimeSampling, floor: float) -> Tensor:
    """Return which levels (33,) lie within 99.9 % of those that are trained at, Bool."""
    ends = times.times(process, torch.tensor([0.0005, 0.9995], dtype=torch.float64), floor)
    low, high = process.log_snr(ends).sort().values.tolist()
    inside: Tensor = (low <= LEVELS) & (high >= LEVELS)
    return inside
