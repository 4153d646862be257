"""Clips of the GIFs of a source on this machine, decoded once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_lightning.data.build import build
from ddpm_lightning.data.clips.base import ClipData, Fraction
from ddpm_lightning.data.decode import decode
from ddpm_lightning.data.gif_blocks import GifError
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

    def first_clips(self, most: int) -> list[Tensor]:
        """Decode the first GIFs alone, none of which is stored.

        Raises:
            ValueError: if none of the source's GIFs is usable.
        """
        clips, recipe = [], self.recipe(self.source.limits)
        error = None
        windows = replace(self.windows, random=False)
        for key in self.source.keys():  # noqa: SIM118
            try:
                decoded = decode(self.source.read(key), recipe, self.source.open)
            except GifError as e:
                error = e
                continue
            shown = windows.frames(decoded.shots, len(decoded.clip), 0.0)
            clips.append(torch.from_numpy(decoded.clip[shown]))
            if len(clips) == most:
                break
        if not clips:
            raise ValueError(f"no usable GIF in {self.source.describe()}, the last: {error}")
        return clips
