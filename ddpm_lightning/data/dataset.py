"""Windows of cached clips as a torch dataset, and which clips train and which validate."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from ddpm_lightning.data.cache import ClipCache, split
from ddpm_lightning.data.clip import window

_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """clip: (B, F, H, W, C) uint8; index: (B,) int64, positions in the dataset.

    A single item of the dataset has no B.
    """

    clip: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls


class ClipDataset(Dataset[Batch]):
    """num_frames frames of each chosen clip; shorter clips are looped.

    Args:
        indices: positions in the cache; dataset item i is clip indices[i].
        random_window: start anywhere, drawn from torch's global generator (as loaders seed it in
            every worker), instead of in the middle.
    """

    def __init__(
        self, cache: ClipCache, indices: Sequence[int], num_frames: int, random_window: bool
    ) -> None:
        self.cache = cache
        self.indices = list(indices)
        self.num_frames = num_frames
        self.random_window = random_window

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Batch:
        clip = self.cache.clip(self.indices[i])
        start = None
        if self.random_window:
            num_starts = max(1, len(clip) - self.num_frames + 1)
            start = int(torch.randint(num_starts, ()))
        chosen = torch.tensor(window(clip, self.num_frames, start))  # copies: the file is read-only
        return Batch(chosen, torch.tensor(i))


def train_val_indices(cache: ClipCache, val_fraction: float) -> tuple[list[int], list[int]]:
    """Positions in the cache that train and that validate, by cache.split.

    A side that would be empty gets all clips instead, with a warning.
    Raises ValueError if val_fraction lies outside [0, 1].
    """
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction must lie in [0, 1], got {val_fraction}")
    sides: dict[str, list[int]] = {"train": [], "val": []}
    for i, entry in enumerate(cache.entries):
        sides[split(entry.sha256, val_fraction)].append(i)
    everything = list(range(len(cache)))
    for name, side in sides.items():
        if not side:
            _log.warning(
                "val_fraction=%g leaves no %s clip among %d: the %s side uses all of them",
                val_fraction,
                name,
                len(cache),
                name,
            )
    return sides["train"] or everything, sides["val"] or everything
