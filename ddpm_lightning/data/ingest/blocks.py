"""From settled rows of the ledger to shards: block by block, in the order of the list.

A block is a fixed range of positions and becomes one shard. It is written when every URL in it is
settled and all earlier blocks are written, so that the shards are a function of what became of the
URLs, not of the order in which they arrived or of how often the ingest was killed.
"""

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np

from ddpm_lightning.data.ingest.ledger import Ledger, LedgerRow
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import (
    Entry,
    Header,
    bin_name,
    create,
    finish,
    index_name,
    mark_name,
    parse_index,
    read_manifest,
    recover,
    write_shard,
)


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
        written = _opened(directory, header)
        damaged = {n for n in written if (directory / mark_name(n)).exists()}
        self._written = written - damaged
        self._seen: dict[str, str] = {}  # content -> key, of all written clips
        for number in sorted(self._written):
            for entry in self._index(number):
                self._seen.setdefault(entry.sha256, entry.key)
        self._reconcile()
        self._unsettled: Counter[int] = Counter()
        self._waiting: set[int] = set()
        for row in ledger.rows():
            block = self.block(row)
            self._unsettled[block] += row.state == "new"
            if self._unsettled[block] or block not in self._written:
                self._waiting.add(block)

    def block(self, row: LedgerRow) -> int:
        return row.position // self._span

    @property
    def num_clips(self) -> int:
        """In written shards."""
        return len(self._seen)

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
        if not self._waiting:
            finish(self._directory)
        return not self._waiting

    def _reconcile(self) -> None:
        """What the ledger says of clips holds only as far as they are there."""
        lost: list[str] = []
        found: list[str] = []
        for row in self._ledger.rows("decoded"):
            if not self._spool.holds(row.url):
                (found if self._is_written(row) else lost).append(row.url)
        lost += [r.url for r in self._ledger.rows("stored") if self.block(r) not in self._written]
        self._ledger.mark(found, "stored")
        self._ledger.mark(lost, "new")
        self._spool.keep(row.url for row in self._ledger.rows("decoded"))

    def _is_written(self, row: LedgerRow) -> bool:
        return row.sha256 is not None and self._seen.get(row.sha256) == row.key

    async def _write(self, number: int) -> None:
        kept = self._clips(number) if number in self._written else {}
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
            else:
                spooled = self._spool.get(row.url)
                if spooled is None:  # damaged since; the next ingest fetches it again
                    self._fail(row, "lost", skipped)
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
        self._written.add(number)
        for row in rows:
            self._spool.drop(row.url)

    def _fail(self, row: LedgerRow, cause: str, skipped: dict[str, str]) -> None:
        self._ledger.record(row.url, "failed", cause=cause, transient=cause == "lost")
        skipped[row.key] = cause

    def _index(self, number: int) -> tuple[Entry, ...]:
        path = self._directory / index_name(number)
        return parse_index(path.read_bytes(), str(path)).entries

    def _clips(self, number: int) -> dict[str, tuple[Entry, np.ndarray]]:
        """Of a shard that is written again, because some of its failures were tried again."""
        content = np.fromfile(self._directory / bin_name(number), np.uint8)
        shape = read_manifest(self._directory).header.shape
        frames = content.reshape(-1, *shape)
        return {e.key: (e, frames[e.offset : e.offset + e.num_frames]) for e in self._index(number)}


def _opened(directory: Path, header: Header) -> set[int]:
    """Numbers of the shards that are there; a damaged manifest is made again from them."""
    try:
        read_manifest(directory)
    except FileNotFoundError:
        pass
    except ValueError:
        recover(directory, header)
    return {shard.number for shard in create(directory, header).shards}
