"""Which clips train and which validate: by a hash of their content, so duplicates never part."""

import logging
from collections.abc import Sequence
from typing import Literal

from ddpm_lightning.data.shards import Entry

_log = logging.getLogger(__name__)


def split(sha256: str, val_fraction: float) -> Literal["train", "val"]:
    """The side on which a clip falls, by its content alone: other files cannot move it."""
    return "val" if int(sha256[:16], 16) < val_fraction * 2**64 else "train"


def train_val_indices(entries: Sequence[Entry], val_fraction: float) -> tuple[list[int], list[int]]:
    """Positions among the entries that train and that validate.

    A side that would be empty gets all clips instead, with a warning.
    """
    sides: dict[str, list[int]] = {"train": [], "val": []}
    for i, entry in enumerate(entries):
        sides[split(entry.sha256, val_fraction)].append(i)
    everything = list(range(len(entries)))
    for name, side in sides.items():
        if not side:
            _log.warning(
                "val_fraction=%g leaves no %s clip among %d: the %s side uses all of them",
                val_fraction,
                name,
                len(entries),
                name,
            )
    return sides["train"] or everything, sides["val"] or everything
