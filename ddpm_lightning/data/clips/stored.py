"""Clips that are stored already: what an ingest has made, here or on another machine."""

from typing import Any

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.data.places import find_parts
from ddpm_lightning.data.store import ClipStore


class StoredClips(ClipData):
    """Reads the clips of a store where it lies.

    Args:
        path: a folder, or any address that fsspec knows, that holds a store or its parts.
        options: see ClipData; size, fps and channels are those of the stored clips. Shards that are
            not local are copied to cache_path when they are first used.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def label_names(self) -> list[str]:
        self.load()
        assert self.store is not None
        names = {entry.label for entry in self.store.entries} - {""}
        if not names:
            raise ValueError(
                f"the clips in {self.path} were stored without labels; store them again, or use "
                "condition=none"
            )
        return sorted(names)

    def open_store(self, world_size: int = 1) -> ClipStore:
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
