"""An ingest: URLs of a list are fetched, decoded and stored, and every one is accounted for.

Defines Job (what to ingest and where to), and run, which does it in one process with decode workers
beside it. It may be killed at any moment and run again: the ledger says what is left.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_lightning.data.decode import Decoded, Recipe
from ddpm_lightning.data.ingest.blocks import Blocks
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.ledger import Ledger, LedgerRow
from ddpm_lightning.data.ingest.lists import Item
from ddpm_lightning.data.ingest.pool import DecodePool, Failure
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import Header
from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.files.bounded import read_json

if TYPE_CHECKING:
    from ddpm_lightning.data.ingest.fetch import Fetched

REPORT = "ingest.json"
UNLISTED = "unlisted"  # was in the list when an ingest began, and is not any more
MAX_HELD_EACH = 4  # files that wait, for every decode worker
MAX_READ_AHEAD = 16_384  # URLs, of which a slow host may take up all but a few
SECONDS_BETWEEN_NEWS = 0.5


@dataclass(frozen=True)
class Job:
    """Describes one part of an ingest.

    Args:
        items: of the part, in the order of the list.
        directory: of the part: ledger, spool, shards and manifest.
        source: what messages call the list.   splits: of it, none for all of it.
        block_size: URLs to a shard.   num_parts: over which the list is dealt.
        num_workers: decode processes; None: one for every processor.
    """

    items: Sequence[Item]
    directory: Path
    source: str
    recipe: Recipe
    splits: Sequence[str] = ()
    limits: FetchLimits = field(default_factory=FetchLimits)
    block_size: int = 256
    num_parts: int = 1
    num_workers: int | None = None


@dataclass
class News:
    """The progress of an ingest."""

    num_urls: int = 0
    num_settled: int = 0  # in this run or before
    num_fetched: int = 0  # in this run
    num_bytes: int = 0  # in this run
    seconds: float = 0.0  # of this run
    causes: Counter[str] = field(default_factory=Counter)  # clips, and failures by cause
    num_unlisted: int = 0  # ingested before, and not in the list any more
    complete: bool = False


def run(job: Job, retry: str, wait: bool, on_news: Callable[[News], None]) -> News:
    """Ingest what is left of a job, and write ingest.json beside its shards.

    Args:
        retry: "transient" to try again what may have recovered, else "none".
        wait: for another process that ingests the same part, instead of raising ValueError.
        on_news: takes the news every half second, and at the end.
    Raises ValueError and OSError in one line; what is stored stays.
    """
    with Ledger(job.directory / "ledger.db", wait=wait) as ledger:
        ledger.add(job.items)
        ledger.retry(retry)
        _keep_to_list(ledger, {item.url for item in job.items})
        news = asyncio.run(_Ingest(job, ledger, on_news).run())
    report = {"splits": list(job.splits), "causes": dict(news.causes.most_common())}
    content = json.dumps(vars(news) | report, indent=1)
    write_file(job.directory / REPORT, [content.encode() + b"\n"], len(content) + 1)
    return news


def read_report(directory: Path) -> dict[str, Any]:
    """Return ingest.json of a part; empty where there is none, or it is damaged."""
    try:
        found = read_json(directory / REPORT)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Ingest:
    def __init__(self, job: Job, ledger: Ledger, on_news: Callable[[News], None]) -> None:
        self._job, self._ledger, self._on_news = job, ledger, on_news
        form = job.recipe
        self._spool = Spool(job.directory / "spool")
        header = Header((form.height, form.width, form.channels), form.fps, job.source)
        self._blocks = Blocks(
            ledger, self._spool, job.directory, header, job.block_size * job.num_parts
        )
        num_urls = ledger.counts().total()
        self._news = News(num_urls=num_urls, num_unlisted=num_urls - len(job.items))
        self._num_held = 0  # files that wait for a decode worker
        self._max_held = MAX_HELD_EACH * (job.num_workers or os.cpu_count() or 1)
        self._moved = asyncio.Event()  # something was settled
        self._all_settled = False

    async def run(self) -> News:
        from ddpm_lightning.data.ingest.fetch import Fetcher

        start = time.monotonic()
        reporter = asyncio.create_task(self._report(start))
        try:
            async with (
                Fetcher(self._job.limits, ready=self._room) as self._fetcher,
                DecodePool(self._job.recipe, self._job.num_workers) as self._pool,
                asyncio.TaskGroup() as group,
            ):
                if self._ledger.counts()["new", None]:
                    await self._pool.start()
                group.create_task(self._write())
                await self._fetch_all()
                self._all_settled = True
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            reporter.cancel()
        self._news.complete = self._blocks.finish()
        self._update(start)
        return self._news

    async def _fetch_all(self) -> None:
        """A task for each URL, so that a host that is slow holds up its own URLs only."""
        places = asyncio.Semaphore(MAX_READ_AHEAD)
        async with asyncio.TaskGroup() as group:
            for row in self._ledger.rows("new"):
                await places.acquire()
                task = group.create_task(self._one(row))
                task.add_done_callback(lambda _: places.release())

    async def _room(self) -> None:
        """Waits while the decode workers have enough to do."""
        while self._num_held >= self._max_held:
            self._moved.clear()
            await self._moved.wait()

    async def _one(self, row: LedgerRow) -> None:
        fetched = await self._fetcher.fetch(row.url)
        self._news.num_fetched += 1
        self._news.num_bytes += fetched.num_bytes
        outcome: Decoded | Failure | Fetched = fetched
        if fetched.data is not None:
            self._num_held += 1
            outcome = await self._pool.decode(fetched.data)
            self._num_held -= 1
        record = partial(
            self._ledger.record, row.url, tries=fetched.tries, num_bytes=fetched.num_bytes
        )
        if isinstance(outcome, Decoded):
            await asyncio.to_thread(self._spool.put, row.url, outcome)
            record("decoded", sha256=outcome.sha256)
        else:
            record(
                "failed",
                cause=outcome.cause,
                transient=outcome.transient,
                detail=outcome.detail,
            )
        self._blocks.settled(row)
        self._moved.set()

    async def _write(self) -> None:
        """Shards appear as their blocks are complete."""
        done = False
        while not done:
            done = self._all_settled
            await self._blocks.write_ready()
            if not done:
                await asyncio.sleep(SECONDS_BETWEEN_NEWS / 5)

    async def _report(self, start: float) -> None:
        while True:
            self._update(start)
            await asyncio.sleep(SECONDS_BETWEEN_NEWS)

    def _update(self, start: float) -> None:
        counts = self._ledger.counts()
        self._news.seconds = time.monotonic() - start
        self._news.num_settled = sum(n for (state, _), n in counts.items() if state != "new")
        self._news.causes = Counter()
        for (state, cause), count in counts.items():
            if state != "new":
                self._news.causes[cause or "clips"] += count
        self._on_news(self._news)


def _keep_to_list(ledger: Ledger, urls: set[str]) -> None:
    """Mark URLs that the list no longer has as failed, and those that it has again as new."""
    gone = [row.url for row in ledger.rows("new") if row.url not in urls]
    back = [r.url for r in ledger.rows("failed") if r.cause == UNLISTED and r.url in urls]
    for url in gone:
        ledger.record(url, "failed", cause=UNLISTED)
    ledger.mark(back, "new")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group; the others are its consequences."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
