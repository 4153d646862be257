"""Windows of stored clips, a batch at a time, with everything random keyed by the sample's number.

What a sample shows is a function of the seed, its clip and its number in the stream: not of the
worker, the batch or the restart that asks for it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ddpm_lightning.data.augmentation import NO_AUGMENTATION, Augmentation
from ddpm_lightning.data.draws import uniform
from ddpm_lightning.data.order import Sample
from ddpm_lightning.data.shards import Entry
from ddpm_lightning.data.store import ClipStore, DamagedClip
from ddpm_lightning.data.windows import Windows

_START, _SPEED, _FLIP, _CAPTION, _DOWN, _RIGHT, _ZOOM, _NUM_LANES = range(8)
_CHANGES = [_FLIP, _SPEED, _DOWN, _RIGHT, _ZOOM]  # as in Amounts
_MAX_SUBSTITUTES = 100


Annotation = dict[str, Any]  # what is known of a clip: label, caption, fps; only what is known


class Batch(NamedTuple):
    """clip: (B, F, H, W, C) uint8; index: (B,) int64, positions in the dataset; annotations: B of
    them; number: B of them, the samples drawn before each.
    """

    clip: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    annotations: list[Annotation]
    number: list[int]


class ClipDataset(Dataset[Batch]):
    """A window of each chosen clip.

    A damaged clip is replaced by another one, chosen by the sample's number; the store counts it.

    Args:
        indices: positions in the store; dataset item i is clip indices[i].
        augmentation: of the samples, which then hold its amounts.
        seed: of all that is random.
    """

    def __init__(
        self,
        store: ClipStore,
        indices: Sequence[int],
        windows: Windows,
        *,
        augmentation: Augmentation = NO_AUGMENTATION,
        seed: int = 0,
    ) -> None:
        self.store = store
        self.indices = list(indices)
        self.windows = windows
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Batch:
        """A batch of one, for sample number i."""
        return self.__getitems__([Sample(i, i)])

    def __getitems__(self, samples: Sequence[Sample]) -> Batch:
        numbers = np.array([sample.number for sample in samples])
        draws = uniform(self.seed, numbers, _NUM_LANES)
        shape = (len(samples), self.windows.num_frames, *self.store.shape)
        shown = np.empty(shape, dtype=np.uint8)
        clips = torch.from_numpy(shown)  # the same memory
        index, annotations = [], []
        for row, sample in enumerate(samples):
            i, clip = self._clip(sample)
            entry = self.store.entries[self.indices[i]]
            amounts = self.augmentation.amounts(draws[row, _CHANGES].tolist())
            speed = self.augmentation.speed(amounts)
            frames = self.windows.frames(entry.shots, len(clip), draws[row, _START], speed)
            np.take(clip, frames, axis=0, out=shown[row], mode="clip")  # raise would copy twice
            known = annotation(entry, draws[row, _CAPTION], speed)
            if any(amounts):
                clips[row] = self.augmentation.apply(clips[row], amounts)
                known["augmentation"] = amounts
            index.append(i)
            annotations.append(known)
        return Batch(clips, torch.tensor(index), annotations, numbers.tolist())

    def annotation(self, i: int) -> Annotation:
        """Return what is known of item i, with the first of its captions."""
        return annotation(self.store.entries[self.indices[i]])

    def shards(self) -> list[int]:
        """The shard of every item, for the sampler."""
        return [self.store.shard(i) for i in self.indices]

    def digest(self) -> str:
        """Of which clips these are, and in which order."""
        contents = "".join(self.store.entries[i].sha256 for i in self.indices)
        return hashlib.sha256(contents.encode()).hexdigest()

    def _clip(self, sample: Sample) -> tuple[int, np.ndarray]:
        """The item shown for a sample, its own one unless that is damaged, and its clip."""
        i = sample.item
        for attempt in range(_MAX_SUBSTITUTES):
            try:
                return i, self.store.clip(self.indices[i])
            except DamagedClip as error:
                cause = error
                lanes = uniform(self.seed, np.array([sample.number]), _NUM_LANES + attempt + 1)
                i = int(lanes[0, -1] * len(self))
        raise ValueError(
            f"{_MAX_SUBSTITUTES} clips drawn in a row are damaged (the last one: {cause}); "
            "see what python inspect_data.py says of them"
        )


def annotations(entry: Entry) -> list[Annotation]:
    """Return what is known of a clip, once with each of its captions."""
    count = max(1, len(entry.captions))
    return [annotation(entry, (k + 0.5) / count) for k in range(count)]


def annotation(entry: Entry, draw: float = 0.0, speed: float = 1.0) -> Annotation:
    """Return what is known of a clip.

    Args:
        draw: in [0, 1), of one of its captions.   speed: at which it is played.
    """
    known: Annotation = {}
    if entry.label:
        known["label"] = entry.label
    if entry.captions:
        known["caption"] = entry.captions[int(draw * len(entry.captions))]
    if entry.gif_fps:
        known["fps"] = entry.gif_fps * speed
    return known
