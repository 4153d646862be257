"""The clip store: every clip of one or many parts, memory-mapped, and every damage noticed.

What the manifests and descriptions say is checked when a shard is opened, a clip's crc32 when it is
first read. A shard that cannot be opened is left out; a clip that is not as written raises
DamagedClip, and its shard is marked so that whoever wrote it writes it again. Both are counted in
`damage` and logged. How clips got into the store is not known here.
"""

import errno
import hashlib
import logging
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpm_lightning.data.places import Place, place
from ddpm_lightning.data.shards import (
    MANIFEST,
    Entry,
    Header,
    Listing,
    Manifest,
    parse_index,
    parse_manifest,
)

Address = str | Path
Snapshot = tuple[tuple[int, int], ...]  # (part, shard) in the order in which they were opened

_UNREAD, _GOOD, _BAD = 0, 1, 2
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # of this process, not of the file

_log = logging.getLogger(__name__)


class DamagedClip(ValueError):  # noqa: N818 - it is one more ValueError
    """A clip whose bytes are not those that were written."""


@dataclass(frozen=True, slots=True)
class _Shard:
    place: Place
    listing: Listing

    def __str__(self) -> str:
        return f"{self.place}/{self.listing.bin_name}"


class ClipStore:
    """The clips of all parts, in the order in which their shards were opened.

    entries: list of Entry.   skipped_keys: key -> cause.   damage: shard -> what is wrong with it.
    sources: what the clips are from.   complete: whether no part will grow.
    It pickles as its addresses.

    Args:
        addresses: one or many folders, or fsspec addresses, that hold a part each.
        snapshot: what an earlier store's `snapshot` was: open these shards, in this order.
        copies: the folder into which shards from other than local folders are copied.
        keys: of the clips wanted; None: all.
    Raises ValueError, in one line, when a manifest is damaged, missing or of another form.
    """

    def __init__(
        self,
        addresses: Address | Sequence[Address],
        snapshot: Snapshot | None = None,
        copies: Path | None = None,
        keys: frozenset[str] | None = None,
    ) -> None:
        self.addresses = (addresses,) if isinstance(addresses, Address) else tuple(addresses)
        self.copies, self.keys = copies, keys
        self.entries: list[Entry] = []
        self.skipped_keys: dict[str, str] = {}
        self.damage: dict[str, str] = {}
        self.snapshot: Snapshot = ()
        self.complete = False
        self._places = [place(address, copies) for address in self.addresses]
        self._header: Header | None = None
        self.sources: list[str] = []
        self._shards: list[_Shard] = []
        self._shard_of: list[int] = []  # of every entry, in _shards
        self._state = bytearray()  # of every entry
        self._contents: set[str] = set()
        self._take(snapshot)

    def __len__(self) -> int:
        return len(self.entries)

    def __reduce__(self) -> tuple[type["ClipStore"], tuple[object, ...]]:
        return ClipStore, (self.addresses, self.snapshot, self.copies, self.keys)

    def refresh(self) -> int:
        """Take in the shards that have appeared; entries only ever grow at their end.

        Returns how many clips are new.
        """
        before = len(self)
        self._take(None)
        return len(self) - before

    def _take(self, snapshot: Snapshot | None) -> None:
        """Open the shards of a snapshot, or all that are there and not open."""
        manifests = [self._manifest(place) for place in self._places]
        listed = {(p, s.number): s for p, part in enumerate(manifests) for s in part.shards}
        opened = set(self.snapshot)
        wanted = listed if snapshot is None else snapshot
        for part, number in [shard for shard in wanted if shard not in opened]:
            if (part, number) not in listed:
                raise ValueError(f"shard {number} of part {part} is gone; it was there before")
            self._open(self._places[part], listed[part, number])
            self.snapshot += ((part, number),)
        self.complete = all(manifest.complete for manifest in manifests)

    def clip(self, i: int) -> np.ndarray:
        """Clip i, (num_frames, H, W, C) uint8, read-only, a view of the file.

        Raises DamagedClip if it is not what was written.
        """
        entry = self.entries[i]
        which = self._shard_of[i]
        if self._state[i] == _BAD:
            raise DamagedClip(f"{entry.key} in {self._shards[which]} is damaged")
        offset = entry.offset * math.prod(self.shape)
        shape = (entry.num_frames, *self.shape)
        try:
            clip = np.memmap(self._path(self._shards[which]), np.uint8, "r", offset, shape)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise
            raise self._damaged(i, str(error)) from error
        if self._state[i] == _UNREAD:
            if zlib.crc32(clip.data) != entry.crc32:
                raise self._damaged(i, "its checksum differs")
            self._state[i] = _GOOD
        return clip.view(np.ndarray)

    def shard(self, i: int) -> int:
        """The shard of clip i, numbered 0, 1, .. over all parts."""
        return self._shard_of[i]

    def verify(self) -> dict[str, str]:
        """Read every byte; returns `damage`. Clips of damaged shards raise DamagedClip from now on.

        Where a shard's sha256 differs and no clip's crc32 does, all its clips count as damaged.
        """
        members: dict[int, list[int]] = {}
        for i, which in enumerate(self._shard_of):
            members.setdefault(which, []).append(i)
        for which, clips in members.items():
            shard = self._shards[which]
            try:
                with self._path(shard).open("rb") as file:
                    whole = hashlib.file_digest(file, "sha256").hexdigest() == shard.listing.sha256
            except (OSError, ValueError):
                whole = False
            if not whole:
                bad = [i for i in clips if not self._is_whole(i)]
                for i in bad or clips:
                    self._damaged(i, "its checksum differs")
        return self.damage

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every clip."""
        assert self._header is not None
        return self._header.shape

    @property
    def fps(self) -> float:
        """Frames a second of every clip."""
        assert self._header is not None
        return self._header.fps

    @property
    def skipped(self) -> Counter[str]:
        """How many keys were left out, by cause."""
        return Counter(self.skipped_keys.values())

    def summary(self) -> str:
        """One line: how many clips, from where, what was skipped and what is damaged."""
        line = f"{len(self):,} clips from {', '.join(self.sources)}"
        if self.skipped:
            line += f"; skipped {self.skipped.total():,}: {counts(self.skipped)}"
        if notes := Counter(entry.note for entry in self.entries if entry.note):
            line += f"; taken all the same {notes.total():,}: {counts(notes)}"
        if self.damage:
            line += f"; damaged shards {len(self.damage):,}: {', '.join(self.damage)}"
        return line

    def _manifest(self, place: Place) -> Manifest:
        try:
            manifest = parse_manifest(place.read(MANIFEST), f"{place}/{MANIFEST}")
        except FileNotFoundError as error:
            raise ValueError(
                f"{place} holds no clip store ({MANIFEST} is missing); give another folder"
            ) from error
        header = manifest.header
        if self._header is None:
            self._header = header
        if header.form != self._header.form:
            raise ValueError(f"{place} holds {header}, another part {self._header}; give one form")
        if header.source not in self.sources:
            self.sources.append(header.source)
        return manifest

    def _open(self, place: Place, listing: Listing) -> None:
        shard = _Shard(place, listing)
        self._shards.append(shard)
        try:
            data = place.read(listing.index_name)
            if hashlib.sha256(data).hexdigest() != listing.index_sha256:
                raise ValueError(f"{listing.index_name} is not what the manifest says")
            size = place.size(listing.bin_name)
            if size != listing.num_bytes:
                raise ValueError(f"{size:,} bytes instead of {listing.num_bytes:,}")
            index = parse_index(data, f"{place}/{listing.index_name}")
        except (OSError, ValueError) as error:
            self._note(shard, f"{listing.num_clips:,} clips left out: {error}")
            return
        if (cause := place.marked(listing.number)) is not None:
            self._note(shard, cause)
        for entry in index.entries:
            if not self._is_wanted(entry.key):
                continue
            if entry.sha256 in self._contents:  # in another part
                self.skipped_keys[entry.key] = "duplicate"
                continue
            self._contents.add(entry.sha256)
            self.entries.append(entry)
            self._shard_of.append(len(self._shards) - 1)
            self._state.append(_UNREAD)
        self.skipped_keys |= {k: c for k, c in index.skipped.items() if self._is_wanted(k)}

    def _is_wanted(self, key: str) -> bool:
        return self.keys is None or key in self.keys

    def _path(self, shard: _Shard) -> Path:
        listing = shard.listing
        return shard.place.local(listing.bin_name, listing.num_bytes, listing.sha256)

    def _is_whole(self, i: int) -> bool:
        self._state[i] = _UNREAD
        try:
            self.clip(i)
        except DamagedClip:
            return False
        return True

    def _damaged(self, i: int, cause: str) -> DamagedClip:
        """Count clip i, mark its shard, and log the first one of each shard."""
        entry, shard = self.entries[i], self._shards[self._shard_of[i]]
        self._state[i] = _BAD
        if str(shard) not in self.damage:
            if self._is_current(shard):
                shard.place.mark(shard.listing.number, f"clip {entry.key}: {cause}")
            self._note(shard, f"clip {entry.key} (and perhaps others) left out: {cause}")
        return DamagedClip(f"{entry.key} in {shard} is damaged: {self.damage[str(shard)]}")

    def _is_current(self, shard: _Shard) -> bool:
        """Return whether the part still lists the shard as it was opened."""
        try:
            return shard.listing in self._manifest(shard.place).shards
        except (OSError, ValueError):
            return True

    def _note(self, shard: _Shard, cause: str) -> None:
        if str(shard) not in self.damage:
            self.damage[str(shard)] = cause
            _log.warning("damaged shard %s: %s", shard, cause)


def counts(causes: Counter[str]) -> str:
    """The commonest first: 3 truncated, 1 corrupt."""
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common())
