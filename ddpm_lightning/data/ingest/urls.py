"""A list of URLs as a store of clips: the folders of its parts, and the jobs that fill them."""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ddpm_lightning.data.ingest.decode import Recipe
from ddpm_lightning.data.ingest.driver import Job
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.lists import Item, ListReport, read_list
from ddpm_lightning.data.shards import MANIFEST
from ddpm_lightning.data.store import ClipStore

BLOCK_SIZE = 256


class UrlList:
    """The GIFs of a list, at one size and frame rate.

    Args:
        address: of the list (see lists.read_list): a path, or anything that fsspec knows.
        splits: addresses of lists that choose from it, such as TGIF's train.txt; none: all.
        recipe: the form of the clips.
        cache_path: below which the store lies.
    """

    def __init__(
        self, address: str, splits: Sequence[str], recipe: Recipe, cache_path: Path
    ) -> None:
        self.address, self.splits = address, tuple(splits)
        self.recipe = recipe
        identity = "\0".join([address, *self.splits])
        self.cache_path = Path(cache_path)
        name = re.sub(r"\W+", "-", Path(address).stem)[:40]
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        self.directory = self.cache_path / recipe.digest() / f"{name}-{digest}"

    @cached_property
    def _read(self) -> tuple[list[Item], ListReport]:
        return read_list(self.address, self.splits)

    @property
    def report(self) -> ListReport:
        """How many URLs the list holds, and which lines are odd. Raises ValueError for none."""
        return self._read[1]

    def job(self, part: int, num_parts: int, limits: FetchLimits, num_workers: int | None) -> Job:
        """Every num_parts-th URL, from number `part` on."""
        if not 0 <= part < num_parts:
            raise ValueError(f"part must lie in [0, num_parts), got {part} of {num_parts}")
        return Job(
            items=self._read[0][part::num_parts],
            directory=self.directory / f"part-{part:04d}-of-{num_parts:04d}",
            source=self.address,
            recipe=self.recipe,
            limits=limits,
            block_size=BLOCK_SIZE,
            num_parts=num_parts,
            num_workers=num_workers,
        )

    def parts(self) -> list[Path]:
        """Folders that hold a part of the store, however many machines filled them."""
        return sorted(path.parent for path in self.directory.glob(f"part-*/{MANIFEST}"))

    def is_complete(self) -> bool:
        """Whether nothing is left to be ingested."""
        return bool(self.parts()) and self.store().complete

    def store(self) -> ClipStore:
        """What is there by now. Raises ValueError where nothing is."""
        parts = self.parts()
        if not parts:
            raise ValueError(
                f"nothing of {self.address} is ingested at this size and frame rate yet; "
                "run python ingest.py with the same data= first"
            )
        return ClipStore(parts)
