"""From settled rows of the ledger to shards: block by block, in the order of the list.

A block is a fixed range of positions and becomes one shard. It is written when every URL in it is
settled and all earlier blocks are written, so that the shards are a function of what became of the
URLs, not of the order in which they arrived or of how often the ingest was killed.
"""

import asyncio
import hashlib
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from ddpm_lightning.data.ingest.ledger import Ledger, LedgerRow
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import (
    Entry,
    Header,
    Index,
    Listing,
    bin_name,
    create,
    finish,
    index_name,
    mark_name,
    parse_index,
    read_manifest,
    recover,
    reopen,
    write_shard,
)

LOST = "lost"  # a clip that was decoded, and is not there any more: fetched again next time


class Blocks:
    """The blocks of one part, and which of them are still to be written.

    Args:
        span: positions of the list to a block.
    """

    def __init__(
        self, ledger: Ledger, spool: Spool, directory: Path, header: Header, span: int
    ) -> None:
        self._ledger, self._spool = ledger, spool
        self._directory, self._span = directory, span
        self._stored: dict[int, dict[str, Entry]] = {}  # of written blocks: key -> a sound clip
        self._seen: dict[str, str] = {}  # content -> key, of all written clips
        self._causes: dict[str, str] = {}  # key -> cause, as the written shards have it
        self._waiting: set[int] = set()
        for listing in _listings(directory, header):
            index = _sound_index(directory, listing)
            if index is None:
                continue
            number = listing.number
            entries = {entry.key: entry for entry in index.entries}
            if (directory / mark_name(number)).exists():  # some of its clips are not as written
                entries = {key: entry for key, (entry, _) in self._clips(number).items()}
                self._waiting.add(number)
            self._stored[number] = entries
            self._causes |= index.skipped
            for entry in entries.values():
                self._seen.setdefault(entry.sha256, entry.key)
        self._reconcile()
        self._unsettled: Counter[int] = Counter()
        self._lost = 0
        for row in ledger.rows():
            self._unsettled[self.block(row)] += row.state == "new"
            if not self._is_told(row):
                self._waiting.add(self.block(row))
        if self._waiting:
            reopen(directory)

    def block(self, row: LedgerRow) -> int:
        return row.position // self._span

    def settled(self, row: LedgerRow) -> None:
        """A row that was new has failed or is in the spool."""
        self._unsettled[self.block(row)] -= 1

    async def write_ready(self) -> None:
        """Write the blocks that can be, up to the first one that must wait."""
        while self._waiting and not self._unsettled[first := min(self._waiting)]:
            await self._write(first)
            self._waiting.discard(first)

    def finish(self) -> bool:
        """Mark the part as complete if it is; say whether."""
        complete = not self._waiting and not self._lost
        if complete:
            finish(self._directory)
        return complete

    def _reconcile(self) -> None:
        """What the ledger says of clips holds only as far as they are there."""
        lost: list[str] = []
        found: list[str] = []
        for row in self._ledger.rows("decoded"):
            if not self._spool.holds(row.url):
                (found if self._is_written(row) else lost).append(row.url)
        lost += [row.url for row in self._ledger.rows("stored") if self._entry(row) is None]
        lost += [row.url for row in self._ledger.rows("failed") if row.cause == LOST]
        self._ledger.mark(found, "stored")
        self._ledger.mark(lost, "new")
        self._spool.keep(row.url for row in self._ledger.rows("decoded"))

    def _entry(self, row: LedgerRow) -> Entry | None:
        """Of a row's clip in its shard."""
        return self._stored.get(self.block(row), {}).get(row.key)

    def _is_written(self, row: LedgerRow) -> bool:
        return row.sha256 is not None and self._seen.get(row.sha256) == row.key

    def _is_told(self, row: LedgerRow) -> bool:
        """Whether its shard says of a row what the ledger says."""
        if row.state == "stored":
            entry = self._entry(row)
            return entry is not None and entry.captions == row.captions
        is_written = self.block(row) in self._stored
        return row.state == "failed" and is_written and self._causes.get(row.key) == row.cause

    async def _write(self, number: int) -> None:
        kept = self._clips(number) if number in self._stored else {}
        rows = list(self._ledger.rows(start=number * self._span, stop=(number + 1) * self._span))
        clips: list[np.ndarray] = []
        entries: list[Entry] = []
        skipped: dict[str, str] = {}
        stored: list[str] = []
        for row in rows:
            if row.state == "failed":
                skipped[row.key] = str(row.cause)
                continue
            if row.key in kept:
                entry, clip = kept[row.key]
                entry = replace(entry, captions=row.captions)
            else:
                spooled = self._spool.get(row.url)
                if spooled is None:  # damaged since
                    self._fail(row, LOST, skipped)
                    self._lost += 1
                    continue
                known = spooled._asdict()
                clip = known.pop("clip")
                entry = Entry(row.key, captions=row.captions, **known)
            if self._seen.setdefault(entry.sha256, row.key) != row.key:
                self._fail(row, "duplicate", skipped)
                continue
            clips.append(clip)
            entries.append(entry)
            stored.append(row.url)
        await asyncio.to_thread(write_shard, self._directory, number, clips, entries, skipped)
        self._ledger.mark(stored, "stored")
        self._stored[number] = {entry.key: entry for entry in entries}
        for row in rows:
            self._spool.drop(row.url)

    def _fail(self, row: LedgerRow, cause: str, skipped: dict[str, str]) -> None:
        self._ledger.record(row.url, "failed", cause=cause, transient=cause == LOST)
        skipped[row.key] = cause

    def _clips(self, number: int) -> dict[str, tuple[Entry, np.ndarray]]:
        """Of a shard that is written again, without those that are not as they were written."""
        path = self._directory / index_name(number)
        entries = parse_index(path.read_bytes(), str(path)).entries
        content = np.fromfile(self._directory / bin_name(number), np.uint8)
        frames = content.reshape(-1, *read_manifest(self._directory).header.shape)
        clips = {e.key: (e, frames[e.offset : e.offset + e.num_frames]) for e in entries}
        return {k: (e, c) for k, (e, c) in clips.items() if zlib.crc32(c.data) == e.crc32}


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
    path = directory / index_name(listing.number)
    try:
        data = path.read_bytes()
        num_bytes = (directory / bin_name(listing.number)).stat().st_size
        index = parse_index(data, str(path))
    except (OSError, ValueError):
        return None
    listed = (listing.index_sha256, listing.num_bytes)
    return index if (hashlib.sha256(data).hexdigest(), num_bytes) == listed else None
