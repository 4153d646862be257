"""Batch orders: which clips make the next batch, as pure functions of a cursor.

ShuffledOrder is for training: an endless stream of samples, addressed by how many came before.
Sample `position` of pass `epoch` is clip P(seed, epoch)[position], with P a permutation of all
clips, and global batch k is samples k n .. (k + 1) n - 1, also across the end of a pass. So a run
that is resumed anywhere, on any number of devices, receives the same samples; only which device
gets which sample of a global batch depends on their number. InOrder is for validation.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ddpm_lightning.data.draws import permutation

_permutation = lru_cache(maxsize=4)(permutation)


class Sample(NamedTuple):
    """A dataset's item, and how many samples were drawn before it."""

    item: int
    number: int


class Cursor(NamedTuple):
    """A position in the stream: the pass, the samples drawn in it, and the samples drawn in all."""

    epoch: int = 0
    position: int = 0
    drawn: int = 0


class BatchOrder(ABC):
    """Orders a stream of batches; every rank gets a batch of one size from every global batch.

    cursor: where the stream stands; whoever consumes batches sets it to `after`.
    """

    def __init__(self, batch_size: int, rank: int, world_size: int) -> None:
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.cursor = Cursor()

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.world_size

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on every rank."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a new epoch: move the cursor, if an epoch begins at a certain position."""

    @abstractmethod
    def samples(self, cursor: Cursor) -> list[Sample]:
        """Return this rank's share of the global batch at the cursor."""

    @abstractmethod
    def after(self, cursor: Cursor) -> Cursor:
        """Return the cursor behind that global batch."""

    @abstractmethod
    def renew(self, shards: Sequence[int]) -> None:
        """Begin a new pass over other clips, which lie in these shards."""


class ShuffledOrder(BatchOrder):
    """Shuffles the clips of every pass of an endless stream.

    Args:
        shards: the shard of every clip; rank r of n owns the shards s with s % n == r, and gets
            their samples as far as even batches allow.
        batch_size: of one rank.
        accumulate: batches of an optimizer step; an epoch has whole steps.
    """

    def __init__(
        self,
        shards: Sequence[int],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(batch_size, rank, world_size)
        self.seed = seed
        self.accumulate = accumulate
        self._set(shards)

    def __len__(self) -> int:
        step = self.global_batch_size * self.accumulate
        return max(1, len(self._shards) // step) * self.accumulate

    def begin(self) -> None:
        pass  # a pass ends where it ends

    def samples(self, cursor: Cursor) -> list[Sample]:
        epoch, position, _ = cursor
        slices: list[np.ndarray] = []  # of one or more passes
        lacking = self.global_batch_size
        while lacking:
            order = _permutation(self.seed, epoch, len(self._shards))
            slices.append(order[position : position + lacking])
            lacking -= len(slices[-1])
            epoch, position = epoch + 1, 0
        clips = np.concatenate(slices)
        places = self._share(self._shards[clips] % self.world_size)
        return [Sample(int(clips[place]), cursor.drawn + int(place)) for place in places]

    def after(self, cursor: Cursor) -> Cursor:
        passes, position = divmod(cursor.position + self.global_batch_size, len(self._shards))
        drawn = cursor.drawn + self.global_batch_size
        return Cursor(cursor.epoch + passes, position, drawn)

    def renew(self, shards: Sequence[int]) -> None:
        self._set(shards)
        self.cursor = Cursor(self.cursor.epoch + 1, 0, self.cursor.drawn)

    def _set(self, shards: Sequence[int]) -> None:
        if not len(shards):
            raise ValueError("there is no clip to train on; give other data")
        self._shards = np.asarray(shards, dtype=np.int64)

    def _share(self, owners: np.ndarray) -> np.ndarray:
        """Return the indices in the global batch that fall to this rank, ascending.

        Args:
            owners: (global_batch_size,) the rank that owns each sample.
        """
        own = [np.flatnonzero(owners == rank) for rank in range(self.world_size)]
        spare = np.sort(np.concatenate([places[self.batch_size :] for places in own]))
        lacking = [max(0, self.batch_size - len(places)) for places in own]
        first = sum(lacking[: self.rank])
        taken = spare[first : first + lacking[self.rank]]
        return np.sort(np.concatenate([own[self.rank][: self.batch_size], taken]))


class InOrder(BatchOrder):
    """Takes every clip once, in order; the last batch may be smaller.

    With several ranks, the clips from the first on are repeated until the last batch is even.
    """

    def __init__(self, num_clips: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(batch_size, rank, world_size)
        self._set(num_clips)

    def __len__(self) -> int:
        return math.ceil(self.num_clips / self.global_batch_size)

    def begin(self) -> None:
        self.cursor = Cursor()

    def samples(self, cursor: Cursor) -> list[Sample]:
        left = self.num_clips - cursor.position
        share = min(self.batch_size, math.ceil(left / self.world_size))
        first = cursor.position + self.rank
        clips = [(first + k * self.world_size) % self.num_clips for k in range(share)]
        return [Sample(clip, clip) for clip in clips]

    def after(self, cursor: Cursor) -> Cursor:
        position = cursor.position + self.global_batch_size
        return Cursor(0, position, position) if position < self.num_clips else Cursor()

    def renew(self, shards: Sequence[int]) -> None:
        self._set(len(shards))
        self.cursor = Cursor()

    def _set(self, num_clips: int) -> None:
        if not num_clips:
            raise ValueError("there is no clip to validate on; give other data")
        self.num_clips = num_clips
