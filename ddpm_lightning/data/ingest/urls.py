"""A list of URLs as a store of clips: the folders of its parts, and the jobs that fill them."""

import hashlib
import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ddpm_lightning.data.clip import sides
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.ingest.driver import UNLISTED, Job, read_report
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.lists import Item, ListReport, hashed_key, read_list, read_split
from ddpm_lightning.data.places import local_folder
from ddpm_lightning.data.shards import MANIFEST
from ddpm_lightning.data.store import ClipStore

BLOCK_SIZE = 256
MAX_PARTS = 9999

log = logging.getLogger(__name__)


class UrlList:
    """Ingests the GIFs of a list at one size and frame rate.

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
        self.cache_path = Path(cache_path)
        name = re.sub(r"\W+", "-", Path(address).stem)[:40]
        digest = hashlib.sha256(_absolute(address).encode()).hexdigest()[:8]
        self.directory = self.cache_path / recipe.digest() / f"{name}-{digest}"

    @cached_property
    def _read(self) -> tuple[list[Item], ListReport]:
        return read_list(self.address, self.splits)

    @property
    def report(self) -> ListReport:
        """Return how many URLs the list holds, and the odd lines. Raises ValueError for none."""
        return self._read[1]

    def job(self, part: int, num_parts: int, limits: FetchLimits, num_workers: int | None) -> Job:
        """Return the URLs of a part, which depend on the URLs alone, not on the rest of the list.

        Raises ValueError when there is no such part, or the list is dealt otherwise already.
        """
        if num_parts > MAX_PARTS:
            raise ValueError(f"num_parts must be at most {MAX_PARTS:,}, got {num_parts:,}")
        if not 0 <= part < num_parts:
            raise ValueError(f"part must lie in [0, num_parts), got {part} of {num_parts}")
        if self.num_parts not in (None, num_parts):
            raise ValueError(
                f"num_parts must be {self.num_parts}, as it was for what {self.directory} holds, "
                f"got {num_parts}; give that number, or delete the folder"
            )
        return Job(
            items=[item for item in self._read[0] if _part(item.url, num_parts) == part],
            directory=self.directory / f"part-{part:04d}-of-{num_parts:04d}",
            source=self.address,
            splits=self.splits,
            recipe=self.recipe,
            limits=limits,
            block_size=BLOCK_SIZE,
            num_parts=num_parts,
            num_workers=num_workers,
        )

    @property
    def num_parts(self) -> int | None:
        """Return over how many parts the list was dealt; None before the first ingest.

        Raises ValueError where it was dealt in several ways, whose clips would be counted twice.
        """
        found = {int(path.name[-4:]) for path in self.directory.glob("part-????-of-????")}
        if len(found) > 1:
            raise ValueError(
                f"{self.directory} holds parts of {' and of '.join(map(str, sorted(found)))}; "
                "delete those that are not to be read"
            )
        return next(iter(found), None)

    def parts(self) -> list[Path]:
        """Return the folders that hold a part of the store, however many machines filled them."""
        return sorted(path.parent for path in self.directory.glob(f"part-*/{MANIFEST}"))

    def finished_store(self) -> ClipStore | None:
        """Return the store where nothing is left to be ingested or mended, else None.

        A list at another place is not read again once all of it was ingested.
        """
        if self.num_parts is None or len(self.parts()) < self.num_parts:
            return None
        try:
            store = self.store()
            asked = self._asked()
        except ValueError as error:  # a manifest is damaged, which an ingest mends, or no list
            log.warning("%s", error)
            return None
        settled = {key for key, cause in store.skipped_keys.items() if cause != UNLISTED}
        settled |= {entry.key for entry in store.entries}
        known = all(item.key in settled or hashed_key(item.url) in settled for item in asked)
        return store if known and store.complete and not store.damage else None

    def store(self) -> ClipStore:
        """Return the store of all that is there. Raises ValueError where nothing is."""
        parts = self.parts()
        if not parts:
            raise ValueError(
                f"nothing of {self.address} is ingested at this size and frame rate yet; "
                "run python ingest.py with the same data= first"
            )
        if self.num_parts and len(parts) < self.num_parts:
            log.warning("%d of %d parts of %s are here", len(parts), self.num_parts, self.address)
        splits = [read_split(address)[0] for address in self.splits]
        return ClipStore(parts, keys=frozenset().union(*splits) if splits else None)

    def _asked(self) -> list[Item]:
        reports = [read_report(part) for part in self.parts()]
        if "://" in self.address and all(report.get("splits") == [] for report in reports):
            return []  # all of it was
        return self._read[0]


class IngestData:
    """Holds what an ingest takes from a data configuration: the list, its store, and limits.

    Args:
        size, fps, channels, min_seconds, max_seconds: see Recipe; size is one number for squares.
        list, splits, cache_path: see UrlList.
    """

    def __init__(
        self,
        list: str,
        splits: Sequence[str],
        limits: FetchLimits,
        size: int | Sequence[int],
        fps: float,
        channels: int,
        min_seconds: float | None,
        max_seconds: float | None,
        cache_path: str,
    ) -> None:
        recipe = Recipe(*sides(size), fps, channels, min_seconds, max_seconds)
        self.urls = UrlList(list, splits, recipe, local_folder(cache_path))
        self.limits = limits


def _part(url: str, num_parts: int) -> int:
    return int(hashlib.sha256(url.encode()).hexdigest()[:12], 16) % num_parts


def _absolute(address: str) -> str:
    """Return one address for a list, however its path is spelt."""
    return address if "://" in address else str(Path(address).resolve())
