"""Small clip stores, made without GIFs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpm_lightning.data.shards import Entry, Header, Listing, create, read_manifest, write_shard

SHAPE = (4, 5, 3)
HEADER = Header(SHAPE, 10.0, "tests")


def clip_of(number: int) -> np.ndarray:
    """3 to 12 frames of noise; the number is the seed."""
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (3 + number % 10, *SHAPE), dtype=np.uint8)


def entry_of(number: int) -> Entry:
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    captions = tuple(f"clip {number}, sentence {k}" for k in range(number % 4))
    return Entry(f"{number}.gif", sha256, seconds=number / 10, captions=captions, shots=(0, 2))


def listing_of(folder: Path, number: int) -> Listing:
    return next(shard for shard in read_manifest(folder).shards if shard.number == number)


def bin_of(folder: Path, number: int) -> Path:
    """The file with a shard's clips."""
    return folder / listing_of(folder, number).bin_name


def index_of(folder: Path, number: int) -> Path:
    """The file that describes a shard."""
    return folder / listing_of(folder, number).index_name


def write_numbers(
    folder: Path, shard: int, numbers: Sequence[int], skipped: dict[str, str] | None = None
) -> Listing:
    clips, entries = [clip_of(n) for n in numbers], [entry_of(n) for n in numbers]
    return write_shard(folder, shard, clips, entries, skipped or {})


def write_store(folder: Path, num_clips: int = 10, clips_per_shard: int = 4) -> Path:
    """Shards of consecutive numbers; clip i of the store is clip_of(i)."""
    create(folder, HEADER)
    for shard, first in enumerate(range(0, num_clips, clips_per_shard)):
        write_numbers(folder, shard, range(first, min(first + clips_per_shard, num_clips)))
    return folder
