"""The loader: the same batches however they are fetched, resumed or shared out among ranks."""

import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_lightning.data.augmentation import Augmentation
from ddpm_lightning.data.dataset import Batch, ClipDataset
from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.data.order import Cursor, InOrder, Sample, ShuffledOrder
from ddpm_lightning.data.shards import create
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.data.windows import Windows
from tests.commands import wait_for
from tests.data.stores import HEADER, bin_of, write_numbers, write_store


@pytest.fixture
def dataset(tmp_path: Path) -> ClipDataset:
    """22 clips in shards of 4; everything that can be random is."""
    store = ClipStore(write_store(tmp_path, num_clips=22))
    return ClipDataset(
        store, range(22), Windows(3, random=True), augmentation=Augmentation(True, 0.3)
    )


def loader_of(
    dataset: ClipDataset, batch_size: int = 4, rank: int = 0, world_size: int = 1, **arguments: Any
) -> ClipLoader:
    order = ShuffledOrder(dataset.shards(), batch_size, 1, rank, world_size)
    return ClipLoader(dataset, order, **arguments)


def epochs_of(loader: ClipLoader) -> Iterator[Batch]:
    """Epoch after epoch, without end."""
    while True:
        yield from loader


def epochs(loader: ClipLoader, count: int) -> list[Batch]:
    return list(islice(epochs_of(loader), count * len(loader)))


def worker_pids(loader: ClipLoader) -> list[int]:
    """Return the process ids of the workers of the DataLoader behind it."""
    ahead: Any = loader._ahead
    return [worker.pid for worker in ahead._batches._workers]


def assert_equal(found: Sequence[Batch], wanted: Sequence[Batch]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.clip, b.clip)
        assert torch.equal(a.index, b.index)
        assert a.annotations == b.annotations


def test_batches_are_those_of_the_order_epoch_after_epoch(dataset: ClipDataset) -> None:
    loader = loader_of(dataset)
    assert len(loader) == 5
    batches = epochs(loader, 3)
    assert len(batches) == 15
    order, cursor = loader_of(dataset).order, loader_of(dataset).order.cursor
    for batch in batches:
        wanted = dataset.__getitems__(order.samples(cursor))
        assert_equal([batch], [wanted])
        cursor = order.after(cursor)
    assert sorted(torch.cat([b.index for b in batches])[:22].tolist()) == list(range(22))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_and_persist(dataset: ClipDataset) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    workers = loader_of(dataset, num_workers=2, prefetch=2)
    first = epochs(workers, 1)
    children = set(worker_pids(workers))
    assert_equal(first + epochs(workers, 2), epochs(loader_of(dataset), 3))
    assert set(worker_pids(workers)) == children
    assert torch.equal(torch.get_rng_state(), state)  # training's randomness is left alone
    workers.close()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_resumed_after_any_batch_equals_one_that_was_not_interrupted(
    dataset: ClipDataset, num_workers: int
) -> None:
    whole = epochs(loader_of(dataset), 3)
    for stop in (1, 3, 5, 7, 10) if num_workers == 0 else (7,):
        first = loader_of(dataset, num_workers=num_workers)
        had: list[Batch] = []
        while len(had) < stop:
            for batch in first:
                had.append(batch)
                if len(had) == stop:
                    break
        state = pickle.loads(pickle.dumps(first.state_dict()))
        assert {type(value) for value in state.values()} == {int, str}
        second = loader_of(dataset, num_workers=num_workers)
        second.load_state_dict(state)
        rest = list(second)
        assert len(rest) == (5 - stop % 5)  # of the epoch that was interrupted
        rest += epochs(second, (15 - stop - len(rest)) // 5)
        assert_equal(had + rest, whole)
        first.close()
        second.close()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_batches_of_one_device(dataset: ClipDataset, world_size: int) -> None:
    """Windows, flips and captions included; also after a resume at another world size."""
    whole = list(islice(epochs_of(loader_of(dataset, 8)), 8))
    one = loader_of(dataset, 8)
    assert len(list(islice(epochs_of(one), 3))) == 3
    loaders = []
    for rank in range(world_size):
        loader = loader_of(dataset, 8 // world_size, rank, world_size)
        loader.load_state_dict(one.state_dict())
        loaders.append(loader)
    shares = [list(islice(epochs_of(loader), 5)) for loader in loaders]
    for wanted, *parts in zip(whole[3:], *shares, strict=True):
        items = [
            (int(i), c.numpy().tobytes(), s, int(n))
            for p in parts
            for c, i, s, n in zip(*p, strict=True)
        ]
        assert sorted(items) == sorted(
            (int(i), c.numpy().tobytes(), s, int(n)) for c, i, s, n in zip(*wanted, strict=True)
        )


def test_an_abandoned_epoch_is_not_repeated(dataset: ClipDataset) -> None:
    loader = loader_of(dataset)
    whole = epochs(loader_of(dataset), 2)
    assert_equal([next(iter(loader)), next(iter(loader)), *loader], whole[:7])


def test_in_order_every_epoch_starts_at_the_first_clip(dataset: ClipDataset) -> None:
    loader = ClipLoader(dataset, InOrder(22, 8))
    next(iter(loader))
    for _ in range(2):
        batches = list(loader)
        assert [len(batch.clip) for batch in batches] == [8, 8, 6]
        assert torch.cat([batch.index for batch in batches]).tolist() == list(range(22))


def test_other_data_begin_a_new_pass_and_say_so(
    dataset: ClipDataset, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of(dataset)
    next(iter(loader))
    fewer = ClipDataset(dataset.store, range(9), dataset.windows)
    other = loader_of(fewer)
    other.load_state_dict(loader.state_dict())
    assert "not those of the checkpoint" in caplog.text
    assert other.order.cursor == Cursor(epoch=1, position=0, drawn=4)
    assert len(list(other)) == 2


def test_a_store_that_grows_joins_at_the_next_epoch(tmp_path: Path) -> None:
    create(tmp_path, HEADER)
    write_numbers(tmp_path, 0, range(6))
    store = ClipStore(tmp_path)
    first, second = (ClipDataset(store, range(n), Windows(3, random=True)) for n in (6, 12))
    grown = [None, second, None]  # what each epoch finds
    loader = loader_of(first, 3, grow=lambda: grown.pop(0))
    epoch = iter(loader)
    next(epoch)
    write_numbers(tmp_path, 1, range(6, 12))
    store.refresh()
    assert next(epoch).index.max() < 6  # not in the middle
    assert len(list(epoch)) == 0
    assert loader.state_dict()["batch"] == 0
    assert sorted(torch.cat([batch.index for batch in loader]).tolist()) == list(range(12))


def test_batches_are_fetched_ahead_but_not_without_limit(dataset: ClipDataset) -> None:
    fetched, asked = [], threading.Event()

    class Counted(ClipDataset):
        def __getitems__(self, samples: Sequence[Sample]) -> Batch:
            fetched.append(samples)
            assert len(fetched) <= 4 or asked.wait(600)
            return super().__getitems__(samples)

    counted = Counted(dataset.store, range(22), dataset.windows)
    loader = loader_of(counted, prefetch=3)
    iterator = iter(loader)
    assert not fetched
    next(iterator)
    wait_for(lambda: len(fetched) == 4)  # one delivered, three ready
    time.sleep(0.05)
    assert len(fetched) == 4
    for _ in range(3):  # which are there, though the fifth is not
        next(iterator)
    asked.set()
    assert len(list(iterator)) == 1


def test_waiting_is_measured(dataset: ClipDataset) -> None:
    """Nothing is fetched before it is asked for, so that the whole of the first wait counts."""

    class Slow(ClipDataset):
        def __getitems__(self, samples: Sequence[Sample]) -> Batch:
            time.sleep(0.05)
            return super().__getitems__(samples)

    loader = loader_of(Slow(dataset.store, range(22), dataset.windows))
    started = time.perf_counter()
    next(iter(loader))
    assert 0.05 <= loader.wait_seconds <= time.perf_counter() - started


@pytest.mark.slow
def test_torch_environment_end_with_their_loader(dataset: ClipDataset) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("clip-loader")]

    gc.collect()
    others = set(threads())  # of other tests, and about to end
    loader = loader_of(dataset)
    next(iter(loader))
    assert set(threads()) - others
    del loader
    wait_for(lambda: not set(threads()) - others)


class Failing(ClipDataset):
    """Fails at clip 5."""

    def __getitems__(self, samples: Sequence[Sample]) -> Batch:
        if any(sample.item == 5 for sample in samples):
            raise KeyError("clip 5")
        return super().__getitems__(samples)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_fetching_raises_reaches_the_consumer(dataset: ClipDataset, num_workers: int) -> None:
    failing = Failing(dataset.store, range(22), dataset.windows)
    loader = loader_of(failing, num_workers=num_workers)
    for _ in range(2):  # the second time at once, and not never
        with pytest.raises(KeyError, match="clip 5"):
            epochs(loader, 2)
    loader.close()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_its_cause(dataset: ClipDataset) -> None:
    loader = loader_of(dataset, num_workers=2, prefetch=1)
    iterator = iter(loader)
    next(iterator)
    victim, _ = worker_pids(loader)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"worker .*{victim} ended with -9"):
        epochs(loader, 1000)
    loader.close()


def test_a_damaged_shard_does_not_end_a_run(
    dataset: ClipDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = bin_of(tmp_path, 2)
    file.write_bytes(bytes(file.stat().st_size))
    loader = loader_of(dataset)
    batches = epochs(loader, 4)
    assert all(len(batch.clip) == 4 for batch in batches)
    assert not {8, 9, 10, 11} & set(torch.cat([batch.index for batch in batches]).tolist())
    assert list(dataset.store.damage) == [str(file)]
    assert len([record for record in caplog.records if "damaged shard" in record.message]) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_pinned_where_there_is_a_gpu(dataset: ClipDataset) -> None:
    assert all(batch.clip.is_pinned() for batch in loader_of(dataset))
