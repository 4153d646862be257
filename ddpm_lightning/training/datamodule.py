"""The data module: a source of GIFs -> cached clips -> batches of uint8 (B, F, H, W, C)."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader
from tqdm import tqdm

from ddpm_lightning.data.cache import ClipCache, build
from ddpm_lightning.data.clip import ClipFormat
from ddpm_lightning.data.dataset import Batch, ClipDataset, train_val_indices
from ddpm_lightning.data.sources.base import Source

log = logging.getLogger(__name__)


class ClipDataModule(pl.LightningDataModule):
    """Clips of one format from one source, split by content.

    Args:
        source: makes the source from `path`.
        path: where the source's GIFs lie.
        size: of a frame in pixels, one number for squares or [height, width].
        num_frames, fps: of a clip; GIFs are resampled by their own clock, short ones loop.
        channels: 1 for grey, 3 for colour.
        min_seconds, max_seconds: GIFs of another duration are skipped; None sets no limit.
        val_fraction: share of the GIFs held out, chosen by a hash of their content.
        cache_path: where decoded clips are kept.
        batch_size: clips per device and step.
        num_workers: processes that load batches; 0 is usually fastest, clips are memory-mapped.
    """

    def __init__(
        self,
        source: Callable[[str], Source],
        path: str,
        size: int | list[int],
        num_frames: int,
        fps: float,
        channels: int,
        min_seconds: float | None,
        max_seconds: float | None,
        val_fraction: float,
        cache_path: str,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        if not 0 <= val_fraction < 1:
            raise ValueError(
                f"val_fraction must lie in [0, 1), got {val_fraction}; "
                "0 validates on the training clips"
            )
        self.format = clip_format(size, num_frames, fps, channels)
        self.source = source(path)
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.val_fraction = val_fraction
        self.cache_path = Path(cache_path)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache: ClipCache | None = None

    def load(self) -> None:
        """Decodes what is not cached yet and splits it; called once, before anything else."""
        if self.cache is not None:
            return
        # Shown only where decoding takes longer than a second: not for a cache that is there.
        with tqdm(desc="decoding", unit="GIF", delay=1, leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            self.cache = build(
                self.source,
                self.format,
                self.cache_path,
                min_seconds=self.min_seconds,
                max_seconds=self.max_seconds,
                progress=progress,
            )
        train, val = train_val_indices(self.cache, self.val_fraction)
        self.train_set = ClipDataset(self.cache, train, self.format.num_frames, random_window=True)
        self.val_set = ClipDataset(self.cache, val, self.format.num_frames, random_window=False)
        log.info("%s", self.cache.summary())
        log.info("%d clips to train on, %d to validate on", len(train), len(val))

    @property
    def skipped(self) -> dict[str, int]:
        """How many GIFs were left out, by cause."""
        return dict(self.cache.skipped) if self.cache else {}

    def setup(self, stage: str) -> None:
        self.load()

    def train_dataloader(self) -> "TimedDataLoader":
        return TimedDataLoader(
            self.train_set,
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=len(self.train_set) >= self.batch_size,
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val_set, batch_size=self.batch_size, **self._workers())

    def _workers(self) -> dict[str, Any]:
        return {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}


def clip_format(
    size: int | list[int], num_frames: int, fps: float, channels: int, **_: Any
) -> ClipFormat:
    """The format that a data configuration's keys ask for; what else they hold is passed over."""
    sides = [size, size] if isinstance(size, int) else size
    if len(sides) != 2:
        raise ValueError(f"size takes one number or [height, width], got {sides}")
    height, width = sides
    return ClipFormat(height, width, num_frames, fps, channels)


class TimedDataLoader(DataLoader[Batch]):
    """A loader that knows for how long its consumer has waited for batches, in wait_seconds."""

    wait_seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.wait_seconds += time.perf_counter() - start
            yield batch
