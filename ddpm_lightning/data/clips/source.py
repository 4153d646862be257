"""Clips of the GIFs of a source on this machine, decoded once."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from ddpm_lightning.data.build import build
from ddpm_lightning.data.clips.base import ClipData, Fraction
from ddpm_lightning.data.sources.base import Source
from ddpm_lightning.data.store import ClipStore


class SourceClips(ClipData):
    """Decodes the GIFs of a source once, into a store below cache_path.

    Args:
        source: makes the source from `path`.
        path: where the source's GIFs lie.
        size, val_fraction, options: see ClipData.
    """

    def __init__(
        self,
        source: Callable[[str], Source],
        path: str,
        size: int | list[int] = 32,
        val_fraction: Fraction = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(size, val_fraction=val_fraction, **options)
        self.source = source(path)

    def label_names(self) -> list[str]:
        names = {self.source.label(key) for key in self.source.keys()} - {""}  # noqa: SIM118
        if not names:
            raise ValueError(
                f"no GIF below {self.source.describe()} has a label; put those of each label into "
                "a folder of its own"
            )
        return sorted(names)

    def open_store(self, world_size: int = 1) -> ClipStore:
        # Shown only where decoding takes longer than a second: not for a cache that is there.
        with tqdm(desc="decoding", unit="GIF", delay=1, leave=False) as bar:

            def progress(num_read: int, total: int) -> None:
                bar.total = total
                bar.update(num_read - bar.n)

            return build(self.source, self.recipe(self.source.limits), self.cache_path, progress)
