"""The loader beside litdata's and webdataset's: clips a second, memory, and time spent waiting.

    python benchmarks/loader.py [FOLDER]        pip install litdata webdataset, to compare

2,048 clips of 16 frames of 64x64 in colour (403 MB of noise), written into FOLDER or a temporary
one and in the page cache by then; shuffled batches of 16, one process, one thread for tensor
arithmetic. The contenders take turns and the fastest of all rounds counts. A peer that is not
installed is left out.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_lightning.data.augmentation import Augmentation
from ddpm_lightning.data.dataset import ClipDataset
from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.data.order import ShuffledOrder
from ddpm_lightning.data.shards import Entry, Header, create, finish, write_shard
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.data.windows import Windows

SHAPE = (16, 64, 64, 3)
NUM_CLIPS = 2048
CLIPS_PER_SHARD = 256
BATCH_SIZE = 16
ROUNDS = 4
CLIPS_FOR_MEMORY = 100_000
STEP_SECONDS = 0.02
STEPS = 500


def clip(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, SHAPE, dtype=np.uint8)


def write_store(folder: Path) -> None:
    create(folder, Header(SHAPE[1:], 10.0, "benchmark"))
    for shard, first in enumerate(range(0, NUM_CLIPS, CLIPS_PER_SHARD)):
        numbers = range(first, first + CLIPS_PER_SHARD)
        entries = [Entry(f"{number}.gif", f"{number:064x}", seconds=1.6) for number in numbers]
        write_shard(folder, shard, [clip(number) for number in numbers], entries, {})
    finish(folder)


def our_loader(folder: Path, **options: Any) -> ClipLoader:
    num_workers = options.pop("num_workers", 0)
    store = ClipStore(folder)
    windows = Windows(SHAPE[0], random=True)
    dataset = ClipDataset(store, range(len(store)), windows, augmentation=Augmentation(**options))
    return ClipLoader(dataset, ShuffledOrder(dataset.shards(), BATCH_SIZE, seed=0), num_workers)


def write_litdata(folder: Path) -> None:
    import litdata

    litdata.optimize(
        fn=clip,
        inputs=list(range(NUM_CLIPS)),
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
    )


def litdata_loader(folder: Path, num_workers: int) -> Iterable[Any]:
    import litdata

    dataset = litdata.StreamingDataset(str(folder), shuffle=True)
    return litdata.StreamingDataLoader(dataset, batch_size=BATCH_SIZE, num_workers=num_workers)


def write_webdataset(folder: Path) -> None:
    import webdataset

    folder.mkdir()
    pattern = str(folder / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=CLIPS_PER_SHARD, verbose=0) as writer:
        for number in range(NUM_CLIPS):
            writer.write({"__key__": f"{number:06d}", "npy": clip(number)})


def webdataset_loader(folder: Path, num_workers: int) -> Iterable[Any]:
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(shards, shardshuffle=100).shuffle(256).decode()
    batches = dataset.to_tuple("npy").batched(BATCH_SIZE)
    return webdataset.WebLoader(batches, batch_size=None, num_workers=num_workers)


def clips_per_second(loader: Iterable[Any]) -> float:
    """Over one epoch after the first batch, which starts processes and threads."""
    iterator = iter(loader)
    next(iterator)
    start = time.perf_counter()
    num_batches = sum(1 for _ in iterator)
    return num_batches * BATCH_SIZE / (time.perf_counter() - start)


def resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def memory_growth(loader: ClipLoader) -> tuple[float, float]:
    """Of CLIPS_FOR_MEMORY clips after a first epoch: MiB more at the end, and at the most."""
    list(islice(loader, 8))
    before = resident_mebibytes()
    peak = before
    read = 0
    while read < CLIPS_FOR_MEMORY:
        for batch in loader:
            read += len(batch.clip)
        peak = max(peak, resident_mebibytes())
    return resident_mebibytes() - before, peak - before


def data_wait(loader: ClipLoader) -> tuple[float, float]:
    """The share of its time that a consumer of STEP_SECONDS a batch waits; with the first batch,
    and without."""
    waits = []
    iterator = (batch for _ in iter(int, 1) for batch in loader)
    for _ in range(STEPS):
        before = loader.wait_seconds
        next(iterator)
        waits.append(loader.wait_seconds - before)
        time.sleep(STEP_SECONDS)
    return tuple(sum(part) / (sum(part) + len(part) * STEP_SECONDS) for part in (waits, waits[1:]))  # type: ignore[return-value]


def measure(folder: Path) -> None:
    torch.set_num_threads(1)
    ours = folder / "ours"
    write_store(ours)
    first = clips_per_second(our_loader(ours))
    loaders: dict[str, Callable[[], Iterable[Any]]] = {
        "ours": lambda: our_loader(ours),
        "ours, flip and jitter": lambda: our_loader(ours, flip=True, fps_jitter=0.2),
        "ours, 2 workers": lambda: our_loader(ours, num_workers=2),
    }
    peers = {
        "litdata": (write_litdata, litdata_loader),
        "webdataset": (write_webdataset, webdataset_loader),
    }
    for name, (write, make) in peers.items():
        if find_spec(name) is None:
            print(f"{name} is not installed")
            continue
        write(folder / name)
        for num_workers in (0, 2):
            loaders[f"{name}, {num_workers} workers"] = partial(make, folder / name, num_workers)
    print(f"{'ours, every checksum verified':32}{first:10,.0f} clips/s")
    warm = {name: make() for name, make in loaders.items()}
    best = dict.fromkeys(warm, 0.0)
    for _ in range(ROUNDS):
        for name, loader in warm.items():
            best[name] = max(best[name], clips_per_second(loader))
    for name, rate in best.items():
        print(f"{name:32}{rate:10,.0f} clips/s{best['ours'] / rate:8.1f}x")
    grown, peak = memory_growth(our_loader(ours))
    print(f"{CLIPS_FOR_MEMORY:,} clips: {grown:+.0f} MiB resident, at most {peak:+.0f} MiB")
    share, later = data_wait(our_loader(ours))
    print(
        f"a consumer of {1000 * STEP_SECONDS:.0f} ms a batch waits {share:.2%} of its time", end=""
    )
    print(f", {later:.2%} after the first batch")


def main() -> None:
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    folder = tempfile.mkdtemp()
    try:
        measure(Path(folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
