"""From a source of GIFs to a clip store: every GIF once, at the training size and frame rate.

A store is a folder named by a hash of what determines it, so another size, rate, filter or source
gets its own; it appears whole or not at all.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.gif_blocks import GifError
from ddpm_lightning.data.shards import Entry, Header, create, finish, write_shard
from ddpm_lightning.data.sources.base import Source
from ddpm_lightning.data.store import ClipStore, counts
from ddpm_lightning.files.atomic import write_folder

_VERSION = 4  # raise it when the same clips would be stored in another way
_SHARD_BYTES = 2**26  # a shard is written when its clips have as many

_log = logging.getLogger(__name__)


def build(
    source: Source,
    recipe: Recipe,
    directory: Path,
    progress: Callable[[int, int], None] | None = None,
) -> ClipStore:
    """Open the source's store below directory; make it first if it is missing or damaged.

    Args:
        recipe: the form of the clips, and which GIFs are left out.
        progress: called with (keys done, keys in all) after each GIF.
    Raises:
        ValueError: if no GIF is usable.
        OSError: naming the folder, if it cannot be written.
    """
    identity = {"version": _VERSION, "recipe": recipe.digest(), "source": source.fingerprint()}
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = Path(directory) / name
    if folder.exists():
        try:
            return _opened(folder)
        except (ValueError, OSError) as error:
            _log.warning("rebuilding a damaged clip store: %s", error)

    write_folder(folder, lambda place: _write(source, recipe, place, progress), _is_valid)
    return _opened(folder)


def _write(
    source: Source, recipe: Recipe, folder: Path, progress: Callable[[int, int], None] | None
) -> None:
    shape = (recipe.height, recipe.width, recipe.channels)
    create(folder, Header(shape, recipe.fps, source.describe()))
    seen: dict[str, str] = {}  # content hash -> key
    causes: Counter[str] = Counter()
    clips: list[np.ndarray] = []
    entries: list[Entry] = []
    skipped: dict[str, str] = {}
    number = 0
    keys = source.keys()
    for num_read, key in enumerate(keys, start=1):
        try:
            decoded = decode(source.read(key), recipe, source.open)
            if decoded.sha256 in seen:
                raise GifError("duplicate", f"the same as {seen[decoded.sha256]}")
        except GifError as error:
            skipped[key] = error.cause
            causes[error.cause] += 1
            _log.debug("skipped %s: %s", key, error)
        else:
            seen[decoded.sha256] = key
            clips.append(decoded.clip)
            label, captions = source.label(key), source.captions(key)
            entries.append(Entry(key, label=label, captions=captions, **decoded.facts()))
        if sum(clip.nbytes for clip in clips) >= _SHARD_BYTES:
            write_shard(folder, number, clips, entries, skipped)
            clips, entries, skipped, number = [], [], {}, number + 1
        if progress:
            progress(num_read, len(keys))
    if not seen:
        raise ValueError(
            f"no usable GIF in {source.describe()}: {len(keys):,} files, "
            f"{counts(causes)}; give other files, or widen min_seconds and max_seconds"
        )
    write_shard(folder, number, clips, entries, skipped)
    finish(folder)


def _opened(folder: Path) -> ClipStore:
    """Open the store; ValueError if anything in it is damaged."""
    store = ClipStore(folder)
    if store.damage:
        raise ValueError("; ".join(f"{shard}: {cause}" for shard, cause in store.damage.items()))
    return store


def _is_valid(folder: Path) -> bool:
    try:
        _opened(folder)
    except (ValueError, OSError):
        return False
    return True
