"""Clips of the GIFs of a list of URLs, which are fetched during training as needed."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.data.dataset import ClipDataset
from ddpm_lightning.data.decode import FETCHED_LIMITS
from ddpm_lightning.data.ingest.background import Background
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.urls import UrlList
from ddpm_lightning.data.store import ClipStore

_LIMITS = FetchLimits()

log = logging.getLogger(__name__)


class UrlClips(ClipData):
    """Fetches the GIFs of a list of URLs, into a store below cache_path.

    Args:
        list: a path, or any address that fsspec knows.
        splits: lists that choose from it, such as TGIF's train.txt.
        limits: of fetching.
        min_clips: training begins when as many are there; clips that come later join the training
            set at the ends of epochs.
        frozen: train on what is there, in a fixed order, and fetch nothing.
        max_seconds, options: see ClipData.
    """

    def __init__(
        self,
        list: str,
        splits: Sequence[str] = (),
        limits: FetchLimits = _LIMITS,
        min_clips: PositiveInt = 1000,
        frozen: bool = False,
        max_seconds: float | None = 60,
        **options: Any,
    ) -> None:
        super().__init__(max_seconds=max_seconds, **options)
        self.urls = UrlList(list, splits, self.recipe(FETCHED_LIMITS), self.cache_path)
        self.limits = limits
        self.min_clips, self.frozen = min_clips, frozen
        self._background: Background | None = None

    def open_store(self, world_size: int = 1) -> ClipStore:
        store = self.urls.store() if self.frozen else self.urls.finished_store()
        if store is not None:
            return store
        if world_size > 1:
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

    def close(self) -> None:
        if self._background:
            self._background.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the shards in use, in their order, and how many clips the first of them held."""
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
