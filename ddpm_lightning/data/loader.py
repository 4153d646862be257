"""The loader: batches of a dataset in a batch order, fetched ahead of their consumer.

A thread fetches them: copying out of a memory map takes no interpreter lock worth sharing, and
processes would have to copy every batch once more. They are there for datasets that compute.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.data.order import BatchOrder, Cursor, Sample

_log = logging.getLogger(__name__)


class BatchedDataset(Protocol):
    """A dataset that gives a batch whole."""

    def __getitems__(self, samples: list[Sample]) -> Batch: ...

    def digest(self) -> str:
        """Changes when the samples mean other data."""

    def shards(self) -> list[int]:
        """The shard of every item."""


class ClipLoader:
    """Loads epochs of len(order) batches; each begins where the last one stopped.

    The state counts delivered batches, not fetched ones, so a run resumed from it gets exactly the
    batches that the first run did not get. wait_seconds: for how long the consumer has waited.

    Args:
        num_workers: processes that fetch instead of a thread.
        prefetch: batches held ready, for each worker if there are workers.
        grow: asked before each epoch for the dataset with clips that have arrived, None if there
            are none; a new pass over all of them then begins.
    Raises, where a batch is asked for, what fetching it raised.
    """

    def __init__(
        self,
        dataset: BatchedDataset,
        order: BatchOrder,
        num_workers: int = 0,
        prefetch: int = 4,
        grow: Callable[[], BatchedDataset | None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.order = order  # Lightning replaces an attribute called sampler
        self.num_workers, self.prefetch = num_workers, prefetch
        self._grow = grow
        self.wait_seconds = 0.0
        self._delivered = 0  # batches of this epoch
        self._skip = 0  # batches of the next epoch that an earlier run has had
        self._ahead: _InThread | _Workers | None = None
        self._ahead_at = Cursor()

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        skip, self._skip = self._skip, 0
        if not skip:
            if self._grow is not None and (grown := self._grow()) is not None:
                self._renew(grown)
            self.order.begin()
        for delivered in range(skip + 1, len(self) + 1):
            started = time.perf_counter()
            try:
                batch = self._next()
            finally:
                self.wait_seconds += time.perf_counter() - started
            self._delivered = delivered
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers: the cursor, the batches of this epoch and the data's digest."""
        return {
            **self.order.cursor._asdict(),
            "batch": self._delivered % len(self),
            "data": self.dataset.digest(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the last batch that was delivered; with other data, with a new pass."""
        cursor = {name: state[name] for name in Cursor._fields}
        if state["data"] == self.dataset.digest():
            self._delivered = self._skip = state["batch"] % len(self)
        else:
            _log.warning("the clips are not those of the checkpoint: a new pass over them begins")
            cursor |= {"epoch": state["epoch"] + 1, "position": 0}
            self._delivered = self._skip = 0
        self.order.cursor = Cursor(**cursor)

    def close(self) -> None:
        """Stop fetching ahead; the next batch starts it again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _renew(self, dataset: BatchedDataset) -> None:
        self.close()  # worker processes hold the dataset as it was
        self.dataset, self._delivered = dataset, 0
        self.order.renew(dataset.shards())

    def _next(self) -> Batch:
        if self._ahead_at != self.order.cursor:  # loaded, or begun anew
            self.close()
        if self._ahead is None:
            self._ahead = _Workers(self) if self.num_workers else _InThread(self)
        try:
            batch = next(self._ahead)
        except BaseException:
            self.close()  # nothing more would come
            raise
        self._ahead_at = self.order.cursor = self.order.after(self.order.cursor)
        return batch


class _InThread:
    """Batches from the loader's cursor on, without end, from one thread."""

    def __init__(self, loader: ClipLoader) -> None:
        self._dataset, self._order, self._cursor = loader.dataset, loader.order, loader.order.cursor
        self._is_pinned = torch.cuda.is_available()
        self._pool = ThreadPoolExecutor(1, "clip-loader")
        if self._is_pinned:  # a thread begins on device 0, whatever its parent uses
            self._pool.submit(torch.cuda.set_device, torch.cuda.current_device())
        self._batches: deque[Future[Batch]] = deque()
        for _ in range(loader.prefetch):
            self._submit()

    def __next__(self) -> Batch:
        batch = self._batches.popleft().result()
        self._submit()
        return batch

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        self._batches.append(self._pool.submit(self._fetch, self._cursor))
        self._cursor = self._order.after(self._cursor)

    def _fetch(self, cursor: Cursor) -> Batch:
        batch = self._dataset.__getitems__(self._order.samples(cursor))
        return batch._replace(clip=batch.clip.pin_memory()) if self._is_pinned else batch


class _Workers:
    """Batches as of _InThread, from processes, which torch feeds, watches and ends."""

    def __init__(self, loader: ClipLoader) -> None:
        assert isinstance(loader.dataset, Dataset)
        self._batches: Any = iter(
            DataLoader(
                loader.dataset,
                batch_sampler=_plan(loader.order),
                collate_fn=_whole,
                num_workers=loader.num_workers,
                prefetch_factor=loader.prefetch,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # else it would draw from the training's randomness
            )
        )

    def __next__(self) -> Batch:
        try:
            batch: Batch = next(self._batches)
        except (ConnectionError, EOFError, RuntimeError) as error:
            # Torch names a killed process or not, by when it noticed.
            time.sleep(0.1)  # it may be not quite gone
            codes = {worker.pid: worker.exitcode for worker in self._batches._workers}
            ended = [f"{pid} ended with {code}" for pid, code in codes.items() if code is not None]
            if not ended:
                raise
            raise RuntimeError(f"DataLoader worker (pid) {', '.join(ended)}") from error
        return batch

    def close(self) -> None:
        self._batches._shutdown_workers()  # left to the garbage collector, it can take seconds


def _plan(order: BatchOrder) -> Iterator[list[Sample]]:
    cursor = order.cursor
    while True:
        yield order.samples(cursor)
        cursor = order.after(cursor)


def _whole(batch: Any) -> Any:
    return batch
