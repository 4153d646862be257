"""Decoded clips on disk: every GIF of a source, once, as bytes at the training size and rate.

A cache is a folder with clips.bin, all frames one after another (total_frames, H, W, C) uint8, and
index.json, one entry a clip plus every skipped key with its cause. It is named by a hash of what
determines it, so another size, rate, filter or source gets its own folder; it appears whole or
not at all. Defines build, ClipCache, and split, which needs nothing but a clip's hash.
"""

import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from ddpm_lightning.data import gif
from ddpm_lightning.data.atomic import write_folder
from ddpm_lightning.data.clip import ClipFormat, resample
from ddpm_lightning.data.sources.base import Source

_VERSION = 1  # raise it when the same GIF would give other bytes
_CLIPS, _INDEX = "clips.bin", "index.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One clip: its key and content hash, its first frame in clips.bin, frames, and seconds."""

    key: str
    sha256: str
    offset: int
    num_frames: int
    seconds: float


class ClipCache:
    """A finished cache, opened for reading.

    entries: list of Entry, in the order of keys; skipped_keys: key -> cause; sha256: of clips.bin.
    It pickles as its path, so worker processes map the file instead of copying it.
    Raises ValueError when the folder is damaged and OSError when it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            index = json.loads((directory / _INDEX).read_bytes())
            self.entries = [Entry(**entry) for entry in index["entries"]]
            self.skipped_keys: dict[str, str] = dict(index["skipped"])
            self.source: str = index["source"]
            self.sha256: str = index["sha256"]
            shape = (sum(entry.num_frames for entry in self.entries), *map(int, index["shape"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory / _INDEX} is damaged; delete the folder") from error
        size = (directory / _CLIPS).stat().st_size
        if size != np.prod(shape, dtype=np.int64) or not size:
            raise ValueError(
                f"{directory / _CLIPS} has {size} bytes, not {shape}; delete the folder"
            )
        self._frames = np.memmap(directory / _CLIPS, dtype=np.uint8, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.entries)

    def __reduce__(self) -> tuple[type["ClipCache"], tuple[Path]]:
        return ClipCache, (self.directory,)

    def clip(self, i: int) -> np.ndarray:
        """Clip i, (num_frames, H, W, C) uint8, read-only, a view of the file."""
        entry = self.entries[i]
        return self._frames[entry.offset : entry.offset + entry.num_frames]

    @property
    def skipped(self) -> Counter[str]:
        """How many keys were left out, by cause (see gif.Cause)."""
        return Counter(self.skipped_keys.values())

    def summary(self) -> str:
        """One line: how many clips, from where, and what was skipped."""
        line = f"{len(self):,} clips from {self.source}"
        if self.skipped:
            line += f"; skipped {self.skipped.total():,}: {_counts(self.skipped)}"
        return line


def build(
    source: Source,
    clip_format: ClipFormat,
    directory: Path,
    *,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    limits: gif.Limits = gif.DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> ClipCache:
    """Open the source's cache below directory; make it first if it is missing or damaged.

    Args:
        min_seconds, max_seconds: GIFs that last less, or more, are skipped.
        progress: called with (keys done, keys in all) after each GIF.
    Raises ValueError if no GIF is usable, OSError naming the folder if it cannot be written.
    """
    # num_frames is not part of it: windows are cut when clips are read.
    identity = {
        "version": _VERSION,
        "size": (clip_format.height, clip_format.width, clip_format.channels),
        "fps": clip_format.fps,
        "seconds": (min_seconds, max_seconds),
        "limits": astuple(limits),
        "source": source.fingerprint(),
    }
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = Path(directory) / name
    if folder.exists():
        try:
            return ClipCache(folder)
        except (ValueError, OSError) as error:
            _log.warning("rebuilding a damaged clip cache: %s", error)

    job = _Job(source, clip_format, limits, min_seconds or 0.0, max_seconds or math.inf)
    write_folder(folder, lambda temporary: job.write(temporary, progress), _is_valid)
    return ClipCache(folder)


def split(sha256: str, val_fraction: float) -> Literal["train", "val"]:
    """The side on which a clip falls, by its content alone: other files cannot move it."""
    return "val" if int(sha256[:16], 16) < val_fraction * 2**64 else "train"


@dataclass(frozen=True)
class _Job:
    source: Source
    clip_format: ClipFormat
    limits: gif.Limits
    min_seconds: float
    max_seconds: float

    def write(self, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        entries: dict[str, Entry] = {}  # by content hash
        skipped: dict[str, str] = {}
        digest = hashlib.sha256()
        offset = 0
        keys = self.source.keys()
        with (folder / _CLIPS).open("wb") as file:
            for number, key in enumerate(keys, start=1):
                try:
                    data = self.source.read(key)
                    content = hashlib.sha256(data).hexdigest()
                    if content in entries:
                        raise gif.GifError("duplicate", f"the same as {entries[content].key}")
                    clip, seconds = self._load(data)
                except gif.GifError as error:
                    skipped[key] = error.cause
                    _log.debug("skipped %s: %s", key, error)
                else:
                    entries[content] = Entry(key, content, offset, len(clip), seconds)
                    offset += len(clip)
                    digest.update(clip.data)
                    file.write(clip.data)
                if progress:
                    progress(number, len(keys))
            _flush(file)
        if not entries:
            raise ValueError(
                f"no usable GIF in {self.source.describe()}: {len(keys):,} files, "
                f"{_counts(Counter(skipped.values()))}; give other files, or widen min_seconds and "
                "max_seconds"
            )
        index = {
            "source": self.source.describe(),
            "shape": (self.clip_format.height, self.clip_format.width, self.clip_format.channels),
            "fps": self.clip_format.fps,
            "sha256": digest.hexdigest(),
            "entries": [asdict(entry) for entry in entries.values()],
            "skipped": skipped,
        }
        with (folder / _INDEX).open("wb") as file:
            file.write(json.dumps(index, indent=1).encode())
            _flush(file)

    def _load(self, data: bytes) -> tuple[np.ndarray, float]:
        seconds = sum(gif.durations_ms(data, self.limits)) / 1000
        if seconds < self.min_seconds:
            raise gif.GifError("too_short", f"{seconds:g} s, wanted at least {self.min_seconds:g}")
        if seconds > self.max_seconds:
            raise gif.GifError("too_long", f"{seconds:g} s, wanted at most {self.max_seconds:g}")
        return resample(gif.frames(data, self.limits), self.clip_format), seconds


def _flush(file: BinaryIO) -> None:
    """Onto the disk itself, so that a crash cannot leave a renamed folder of empty files."""
    file.flush()
    os.fsync(file.fileno())


def _is_valid(folder: Path) -> bool:
    try:
        ClipCache(folder)
    except (ValueError, OSError):
        return False
    return True


def _counts(causes: Counter[str]) -> str:
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common())
