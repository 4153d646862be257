"""From settled rows of the ledger to shards, block by block.

A block is a fixed range of positions and becomes one shard, when every URL in it is settled. Of
GIFs with the same content, the first in the list stays and the others are duplicates, whichever
came first. So what the shards hold in the end is a function of what became of the URLs, not of the
order in which they arrived or of how often the ingest was killed.
"""

import asyncio
import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpm_lightning.data.ingest.ledger import Ledger, LedgerRow
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import (
    Entry,
    Header,
    Index,
    Listing,
    create,
    finish,
    mark_name,
    parse_index,
    read_manifest,
    recover,
    reopen,
    write_shard,
)
from ddpm_lightning.files.bounded import read_small

LOST = "lost"  # a clip that was decoded, and is not there any more: fetched again next time
DUPLICATE = "duplicate"


class Holder(NamedTuple):
    """The written clip of a content that is the first in the list."""

    position: int
    block: int


@dataclass
class _Plan:
    """What a shard is to hold."""

    entries: list[Entry] = field(default_factory=list)
    clips: list[Callable[[], np.ndarray]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)  # of the clips

    def __iter__(self) -> Iterator[np.ndarray]:
        """The clips, one in memory at a time."""
        return (load() for load in self.clips)


class Blocks:
    """The blocks of one part, and which of them are still to be written.

    Args:
        span: positions of the list to a block.
    """

    def __init__(
        self, ledger: Ledger, spool: Spool, directory: Path, header: Header, span: int
    ) -> None:
        self._ledger, self._spool = ledger, spool
        self._directory, self._span, self._shape = directory, span, header.shape
        self._listings: dict[int, Listing] = {}
        self._stored: dict[int, dict[str, Entry]] = {}  # of written blocks: key -> a sound clip
        self._holders: dict[str, Holder] = {}  # by content
        self._causes: dict[str, str] = {}  # key -> cause, as the written shards have it
        self._pending: set[int] = set()  # blocks that are to be written
        for listing in _listings(directory, header):
            index = _sound_index(directory, listing)
            if index is None:
                continue
            number = listing.number
            self._listings[number] = listing
            entries = {entry.key: entry for entry in index.entries}
            if (directory / mark_name(number)).exists():  # some of its clips are not as written
                entries = {e.key: e for e in index.entries if _is_sound(self._stored_clip(e), e)}
                self._pending.add(number)
            self._stored[number] = entries
            self._causes |= index.skipped
        self._reconcile()
        self._unsettled: Counter[int] = Counter()
        self._lost = 0
        for row in ledger.rows():
            self._unsettled[self.block(row)] += row.state == "new"
            entry = self._entry(row)
            is_first = entry is None or self._holds(entry, row)
            if not is_first or not self._is_told(row):
                self._pending.add(self.block(row))
        if self._pending:
            reopen(directory)

    def block(self, row: LedgerRow) -> int:
        return row.position // self._span

    def settled(self, row: LedgerRow) -> None:
        """A row that was new has failed or is in the spool."""
        self._unsettled[self.block(row)] -= 1

    async def write_ready(self) -> None:
        """Write the blocks that are settled."""
        while ready := [n for n in self._pending if not self._unsettled[n]]:
            self._pending.remove(min(ready))
            await self._write(min(ready))

    def finish(self) -> bool:
        """Mark the part as complete if it is; say whether."""
        complete = not self._pending and not self._lost
        if complete:
            finish(self._directory)
        return complete

    def _holds(self, entry: Entry, row: LedgerRow) -> bool:
        """Whether a clip is the first of its content; the block of a later one is to change."""
        mine = Holder(row.position, self.block(row))
        first = self._holders.get(entry.sha256, mine)
        if first.position < mine.position:
            return False
        if first.position > mine.position:
            self._pending.add(first.block)
        self._holders[entry.sha256] = mine
        return True

    def _reconcile(self) -> None:
        """What the ledger says of clips holds only as far as they are there."""
        lost: list[str] = []
        contents = {e.sha256 for entries in self._stored.values() for e in entries.values()}
        for row in self._ledger.rows("decoded"):
            if self._spool.holds(row.url):
                contents.add(str(row.sha256))
            else:
                lost.append(row.url)
        lost += [row.url for row in self._ledger.rows("stored") if self._entry(row) is None]
        lost += [
            row.url
            for row in self._ledger.rows("failed")
            if row.cause == LOST or (row.cause == DUPLICATE and row.sha256 not in contents)
        ]
        self._ledger.mark(lost, "new")
        self._spool.keep(row.url for row in self._ledger.rows("decoded"))

    def _entry(self, row: LedgerRow) -> Entry | None:
        """Of a row's clip in its shard."""
        return self._stored.get(self.block(row), {}).get(row.key)

    def _is_told(self, row: LedgerRow) -> bool:
        """Whether its shard says of a row what the ledger says."""
        if row.state == "stored":
            entry = self._entry(row)
            return entry is not None and entry.captions == row.captions
        is_written = self.block(row) in self._stored
        return row.state == "failed" and is_written and self._causes.get(row.key) == row.cause

    async def _write(self, number: int) -> None:
        plan = _Plan()
        rows = list(self._ledger.rows(start=number * self._span, stop=(number + 1) * self._span))
        for row in rows:
            if row.state == "failed":
                plan.skipped[row.key] = str(row.cause)
            else:
                self._take(row, plan)
        listing = await asyncio.to_thread(
            write_shard, self._directory, number, plan, plan.entries, plan.skipped
        )
        self._ledger.mark(plan.urls, "stored")
        self._listings[number] = listing
        written = parse_index(read_small(self._directory / listing.index_name), str(number))
        self._stored[number] = {entry.key: entry for entry in written.entries}
        for row in rows:
            self._spool.drop(row.url)

    def _take(self, row: LedgerRow, plan: _Plan) -> None:
        """A row's clip from its shard or the spool, if it is the first of its content."""
        entry = self._entry(row)
        if entry is not None and _is_sound(self._stored_clip(entry), entry):
            load = partial(self._stored_clip, entry)
            entry = replace(entry, captions=row.captions)
        else:
            spooled = self._spool.get(row.url)
            if spooled is None:  # damaged since
                self._fail(row, LOST, plan)
                self._lost += 1
                return
            entry = Entry(row.key, captions=row.captions, **spooled.facts())
            load = partial(self._spooled_clip, row.url)
        if not self._holds(entry, row):
            self._fail(row, DUPLICATE, plan)
            return
        plan.entries.append(entry)
        plan.clips.append(load)
        plan.urls.append(row.url)

    def _fail(self, row: LedgerRow, cause: str, plan: _Plan) -> None:
        self._ledger.record(row.url, "failed", cause=cause, transient=cause == LOST)
        plan.skipped[row.key] = cause

    def _spooled_clip(self, url: str) -> np.ndarray:
        spooled = self._spool.get(url)
        if spooled is None:
            raise ValueError(f"a decoded clip of {url} was damaged while it was stored; run again")
        return spooled[0]

    def _stored_clip(self, entry: Entry) -> np.ndarray:
        """From its shard as it is on the disk."""
        file = self._directory / self._listings[entry.shard].bin_name
        size = math.prod(self._shape)
        content = np.fromfile(file, np.uint8, entry.num_frames * size, offset=entry.offset * size)
        return content.reshape(-1, *self._shape)


def _is_sound(clip: np.ndarray, entry: Entry) -> bool:
    return zlib.crc32(clip.data) == entry.crc32


def _listings(directory: Path, header: Header) -> tuple[Listing, ...]:
    """The shards that are there; a damaged manifest is made again from them."""
    try:
        read_manifest(directory)
    except FileNotFoundError:
        pass
    except ValueError:
        recover(directory, header)
    return create(directory, header).shards


def _sound_index(directory: Path, listing: Listing) -> Index | None:
    """None for a shard that is missing, or not what is listed."""
    path = directory / listing.index_name
    try:
        data = read_small(path)
        num_bytes = (directory / listing.bin_name).stat().st_size
        index = parse_index(data, str(path))
    except (OSError, ValueError):
        return None
    listed = (listing.index_sha256, listing.num_bytes)
    return index if (hashlib.sha256(data).hexdigest(), num_bytes) == listed else None
