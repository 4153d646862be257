"""Data modules: GIFs -> cached clips -> batches of uint8 (B, F, H, W, C).

ClipDataModule takes GIFs that lie on this machine, UrlDataModule a list of URLs; both make a store
of clips. StoredDataModule takes a store that is there. All that follows is the same.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
from pydantic import Field, NonNegativeInt, PositiveInt
from tqdm import tqdm

from ddpm_lightning.data.build import build
from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.data.dataset import ClipDataset
from ddpm_lightning.data.decode import FETCHED_LIMITS, Recipe
from ddpm_lightning.data.gif_blocks import DEFAULT_LIMITS, Limits
from ddpm_lightning.data.ingest.background import Background
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.urls import UrlList
from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.data.places import find_parts, local_folder
from ddpm_lightning.data.sampler import GlobalSampler, InOrder
from ddpm_lightning.data.shots import ShotMode
from ddpm_lightning.data.sources.base import Source
from ddpm_lightning.data.split import train_val_indices
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.data.windows import Windows

log = logging.getLogger(__name__)


class StoreDataModule(pl.LightningDataModule, ABC):
    """Clips of one format from a store, split by content.

    Args:
        size: of a frame in pixels, one number for squares or [height, width].
        num_frames, fps: of a clip; GIFs are resampled by their own clock, short ones loop.
        channels: 1 for grey, 3 for colour.
        min_seconds, max_seconds: GIFs of another duration are skipped; None sets no limit.
        shots: which shots of a GIF a training window may see, see data.shots.
        val_fraction: share of the GIFs held out, chosen by a hash of their content; with 0 the
            training clips are validated on.
        cache_path: a local folder, where decoded clips are kept.
        batch_size: clips per device and step.
        num_workers: processes that load batches; 0 is usually fastest, clips are memory-mapped.
        flip, fps_jitter: of training samples, see ClipDataset and Windows.
        seed: of the order of training samples and of what is random in them.
    """

    def __init__(
        self,
        size: int | list[int],
        num_frames: int,
        fps: float,
        channels: int,
        min_seconds: float | None,
        max_seconds: float | None,
        shots: ShotMode,
        val_fraction: Annotated[float, Field(ge=0, lt=1)],
        cache_path: str,
        batch_size: PositiveInt,
        num_workers: NonNegativeInt,
        flip: bool,
        fps_jitter: Annotated[float, Field(ge=0, le=1)],
        seed: int,
    ) -> None:
        super().__init__()
        self.format = clip_format(size, num_frames, fps, channels)
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.val_fraction = val_fraction
        self.cache_path = local_folder(cache_path)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.windows = Windows(num_frames, random=True, fps_jitter=fps_jitter, shots=shots)
        self.flip = flip
        self.seed = seed
        self.store: ClipStore | None = None

    @abstractmethod
    def open_store(self) -> ClipStore:
        """The store with clips in it; made, or filled far enough, if need be."""

    def recipe(self, limits: Limits) -> Recipe:
        """What determines a stored clip; num_frames does not: windows are cut when it is read."""
        form = self.format
        sizes = form.height, form.width, form.fps, form.channels
        return Recipe(*sizes, self.min_seconds, self.max_seconds, limits)

    def load(self) -> None:
        """Opens the store and splits it; called once, before anything else."""
        if self.store is not None:
            return
        self.store = self.open_store()
        self._split(self.store, len(self.store))

    def grow(self) -> ClipDataset | None:
        """The training set with the clips that have arrived since; None if there are none."""
        return None

    def _split(self, store: ClipStore, num_first: int) -> None:
        """Clips that came after the first ones do not join the validation set."""
        train, _ = train_val_indices(store.entries, self.val_fraction)
        _, val = train_val_indices(store.entries[:num_first], self.val_fraction)
        self.num_first = num_first
        self.train_set = ClipDataset(store, train, self.windows, flip=self.flip, seed=self.seed)
        self.val_set = ClipDataset(store, val, replace(self.windows, random=False))

    @property
    def skipped(self) -> dict[str, int]:
        """How many GIFs were left out, by cause."""
        return dict(self.store.skipped) if self.store else {}

    def setup(self, stage: str) -> None:
        self.load()

    def train_dataloader(self) -> ClipLoader:
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            in_order = InOrder(len(self.train_set), self.batch_size, *self._rank())
            return ClipLoader(self.train_set, in_order, self.num_workers)
        shards = self.train_set.shards()
        accumulate = self.trainer.accumulate_grad_batches if self.trainer else 1
        sampler = GlobalSampler(shards, self.batch_size, self.seed, *self._rank(), accumulate)
        return ClipLoader(self.train_set, sampler, self.num_workers, grow=self.grow)

    def val_dataloader(self) -> ClipLoader:
        sampler = InOrder(len(self.val_set), self.batch_size, *self._rank())
        return ClipLoader(self.val_set, sampler, self.num_workers)

    def _rank(self) -> tuple[int, int]:
        """This process's number, and how many train together."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class ClipDataModule(StoreDataModule):
    """Clips of the GIFs of a source on this machine.

    Args:
        source: makes the source from `path`.
        path: where the source's GIFs lie.
        options: see StoreDataModule.
    """

    def __init__(self, source: Callable[[str], Source], path: str, **options: Any) -> None:
        super().__init__(**options)
        self.source = source(path)

    def open_store(self) -> ClipStore:
        # Shown only where decoding takes longer than a second: not for a cache that is there.
        with tqdm(desc="decoding", unit="GIF", delay=1, leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return build(self.source, self.recipe(DEFAULT_LIMITS), self.cache_path, progress)


class StoredDataModule(StoreDataModule):
    """Clips that are stored already: what an ingest has made, here or on another machine.

    Args:
        path: a folder, or any address that fsspec knows, that holds a store or its parts.
        options: see StoreDataModule; size, fps and channels are those of the stored clips. Shards
            that are not local are copied to cache_path when they are first used.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def open_store(self) -> ClipStore:
        store = ClipStore(find_parts(self.path), copies=self.cache_path / "copies")
        form = self.format
        wanted = (form.height, form.width, form.channels), form.fps
        if (store.shape, store.fps) != wanted:
            height, width, channels = store.shape
            raise ValueError(
                f"{self.path} holds clips of {width}x{height} pixels, {channels} channels, "
                f"{store.fps:g} a second; give data.size=[{height},{width}] "
                f"data.channels={channels} data.fps={store.fps:g}"
            )
        return store


class UrlDataModule(StoreDataModule):
    """Clips of the GIFs of a list of URLs, which are fetched as needed while training goes on.

    Args:
        list: a path, or any address that fsspec knows.
        splits: lists that choose from it, such as TGIF's train.txt.
        limits: of fetching.
        min_clips: training begins when as many are there; clips that come later join the training
            set at the ends of epochs.
        frozen: train on what is there, in a fixed order, and fetch nothing.
        options: see StoreDataModule.
    """

    def __init__(
        self,
        list: str,
        splits: Sequence[str],
        limits: FetchLimits,
        min_clips: PositiveInt,
        frozen: bool,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.urls = UrlList(list, splits, self.recipe(FETCHED_LIMITS), self.cache_path)
        self.limits = limits
        self.min_clips, self.frozen = min_clips, frozen
        self._background: Background | None = None

    def open_store(self) -> ClipStore:
        store = self.urls.store() if self.frozen else self.urls.finished_store()
        if store is not None:
            return store
        if self._rank()[1] > 1:
            raise ValueError(
                "with several devices all of them must see the same clips: run python ingest.py "
                "first, or add data.frozen=true to train on those that are there"
            )
        if (self.urls.num_parts or 1) > 1:
            raise ValueError(
                f"some of the {self.urls.num_parts} parts in {self.urls.directory} are not "
                "finished: run python ingest.py for them, or add data.frozen=true to train on "
                "what is there"
            )
        try:
            self._background = Background(self.urls, self.limits)
        except ValueError as error:
            stored = (
                "; data.frozen=true trains on what is stored of it" if self.urls.parts() else ""
            )
            raise ValueError(f"{error}{stored}") from error
        return self._background.first_clips(self.min_clips)

    def grow(self) -> ClipDataset | None:
        if self._background:
            self._background.check()
        try:
            if self.store is None or self.frozen or not self.store.refresh():
                return None
        except (ValueError, OSError) as error:
            log.warning("no clips join now: %s", error)
            return None
        self._split(self.store, self.num_first)
        log.info("%d clips to train on", len(self.train_set))
        return self.train_set

    def state_dict(self) -> dict[str, Any]:
        """The shards in use, so that a resumed run goes on with the same clips, in their order."""
        if self.store is None:
            return {}
        names = [Path(address).name for address in self.store.addresses]
        shards = [[names[part], shard] for part, shard in self.store.snapshot]
        return {"shards": shards, "num_first": self.num_first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.store is None or not state:
            return
        places = {Path(address).name: i for i, address in enumerate(self.store.addresses)}
        try:
            snapshot = tuple((places[name], shard) for name, shard in state["shards"])
            self.store = ClipStore(self.store.addresses, snapshot, keys=self.store.keys)
        except (ValueError, KeyError) as error:  # the loader, too, sees that these are other clips
            log.warning("not the clips of the checkpoint: %s", error)
        else:
            self._split(self.store, state["num_first"])

    def teardown(self, stage: str) -> None:
        if self._background:
            self._background.stop()
