"""Shards: many clips in one file, its description beside it, and the manifest that lists them.

A part of a store is a folder with

    shard-00000-0123abcd.bin   the frames of its clips, one after another, (frames, H, W, C) uint8
    shard-00000-4567cdef.json  its entries, the keys skipped and why, the sha256 of the .bin
    manifest.json              the form of all clips, and for every shard the sha256 of both files
    shard-00000.damaged        only where a reader found that shard 0 must be written again

and nothing depends on when it was written. Each file appears whole, the manifest last, so a reader
sees finished shards only. Names hold the beginning of the sha256 of the content, so a shard that is
written again replaces no file that somebody reads; what no manifest lists any more is removed a
week later. The JSON files are sealed, so a flipped bit in any file is found. One process at a time
writes to a part; that is the caller's to ensure.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.files.bounded import read_small
from ddpm_lightning.files.sealed import seal_json, unseal_json

MANIFEST = "manifest.json"

_FORMAT = 2  # of these files; raise it when they change
_KEPT_SECONDS = 7 * 24 * 3600  # of shards that were replaced: a run may read them


@dataclass(frozen=True, slots=True)
class Entry:
    """The facts of one stored clip.

    shard, offset (its first frame in the shard), num_frames and crc32 are filled in by write_shard.
    """

    key: str
    sha256: str  # of the GIF
    shard: int = 0
    offset: int = 0
    num_frames: int = 0
    seconds: float = 0.0  # how long the GIF lasts
    crc32: int = 0  # of the clip's bytes
    captions: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0,)  # frames at which a shot starts
    width: int = 0  # of the GIF in pixels; 0 where nobody asked
    height: int = 0
    gif_fps: float = 0.0  # of the GIF, on average
    label: str = ""  # of the GIF's class; empty where there is none
    note: str = ""  # what is odd about a GIF that was taken all the same


@dataclass(frozen=True, slots=True)
class Header:
    """The facts that a store's clips share: shape (H, W, C), frames a second, and their source."""

    shape: tuple[int, int, int]
    fps: float
    source: str

    @property
    def form(self) -> tuple[tuple[int, int, int], float]:
        """Return what clips must share to be read together."""
        return self.shape, self.fps

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} at {self.fps:g} a second from {self.source}"


@dataclass(frozen=True, slots=True)
class Listing:
    """A shard in the manifest: the size and sha256 of its .bin, and the sha256 of its .json."""

    number: int
    num_clips: int
    num_bytes: int
    sha256: str
    index_sha256: str

    @property
    def bin_name(self) -> str:
        return f"shard-{self.number:05d}-{self.sha256[:8]}.bin"

    @property
    def index_name(self) -> str:
        return f"shard-{self.number:05d}-{self.index_sha256[:8]}.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A part's header and shards by number; complete: no more will come."""

    header: Header
    shards: tuple[Listing, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """What a shard's .json holds; sha256 is that of the .bin."""

    number: int
    header: Header
    sha256: str
    entries: tuple[Entry, ...]
    skipped: dict[str, str]


def mark_name(number: int) -> str:
    return f"shard-{number:05d}.damaged"


def create(directory: Path, header: Header) -> Manifest:
    """Return the part's manifest; make the folder and an empty manifest where there is none.

    Also removes the temporary files of a writer that was killed, and shards that were replaced long
    ago. Raises ValueError if the part holds clips of another form or its manifest is damaged,
    WriteRefused.
    """
    try:
        found = read_manifest(directory)
    except FileNotFoundError:
        found = Manifest(header)
        directory.mkdir(parents=True, exist_ok=True)
        _write_manifest(directory, found)
    if found.header.form != header.form:
        raise ValueError(
            f"{directory} holds clips of {found.header}, not of {header}; choose another folder"
        )
    for pattern in (".shard-*", f".{MANIFEST}.*"):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
    listed = {name for shard in found.shards for name in (shard.bin_name, shard.index_name)}
    for path in directory.glob("shard-*-*.*"):
        if path.name not in listed and path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            path.unlink(missing_ok=True)
    return found


def write_shard(
    directory: Path,
    number: int,
    clips: Iterable[np.ndarray],
    entries: Sequence[Entry],
    skipped: Mapping[str, str],
) -> Listing:
    """Add shard number to a part that create has made, or replace it.

    Args:
        clips: one (N, H, W, C) uint8 an entry; none at all makes a shard that only counts. They
            are asked for twice, one at a time.
        entries: all but where a clip lies, which is filled in.
        skipped: key -> cause, of the GIFs that would have been in this shard.
    Raises WriteRefused; the manifest is then what it was.
    """
    manifest = read_manifest(directory)
    placed: list[Entry] = []
    digest = hashlib.sha256()
    offset = num_bytes = 0
    for clip, entry in zip(clips, entries, strict=True):
        if clip.dtype != np.uint8 or clip.shape[1:] != manifest.header.shape or not len(clip):
            raise ValueError(
                f"{entry.key}: a clip of {clip.dtype} {clip.shape} does not fit into {directory}, "
                f"which holds uint8 (N, *{manifest.header.shape})"
            )
        content = np.ascontiguousarray(clip).data
        digest.update(content)
        crc32 = zlib.crc32(content)
        placed.append(
            replace(entry, shard=number, offset=offset, num_frames=len(clip), crc32=crc32)
        )
        offset += len(clip)
        num_bytes += content.nbytes
    index = _seal(
        "shard",
        {
            "number": number,
            **asdict(manifest.header),
            "bin_sha256": digest.hexdigest(),
            "entries": [asdict(entry) for entry in placed],
            "skipped": dict(skipped),
        },
    )
    listing = Listing(number, len(placed), num_bytes, digest.hexdigest(), _sha256(index))
    parts = (np.ascontiguousarray(clip).data for clip in clips)
    for before in (shard for shard in manifest.shards if shard.number == number):
        for name in (before.bin_name, before.index_name):
            with suppress(OSError):
                os.utime(directory / name)  # a week from now, `create` removes it
    write_file(directory / listing.bin_name, parts, num_bytes)
    write_file(directory / listing.index_name, [index], len(index))
    _write_manifest(directory, _with(manifest, listing))
    (directory / mark_name(number)).unlink(missing_ok=True)
    return listing


def finish(directory: Path) -> None:
    """Mark a part as complete: no shard will be added."""
    _write_manifest(directory, replace(read_manifest(directory), complete=True))


def reopen(directory: Path) -> None:
    """Mark a part as not complete: shards will be added, or written again."""
    _write_manifest(directory, replace(read_manifest(directory), complete=False))


def recover(directory: Path, header: Header) -> Manifest:
    """Write the manifest anew from the shards that are whole and have that form, the newest each.

    For a part whose manifest is damaged or lists damaged shards. Every byte is read. The part is
    not complete afterwards; shards that are missing from the manifest are to be written again.
    """
    manifest = Manifest(header)
    for path in sorted(directory.glob("shard-*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            data = read_small(path)
            index = parse_index(data, str(path))
            listing = Listing(index.number, len(index.entries), 0, index.sha256, _sha256(data))
            with (directory / listing.bin_name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                listing = replace(listing, num_bytes=file.tell())
        except (ValueError, OSError):
            continue
        wanted = (index.sha256, listing.index_name, header.form)
        if (digest, path.name, index.header.form) == wanted:
            (directory / mark_name(index.number)).unlink(missing_ok=True)
            manifest = _with(manifest, listing)
    _write_manifest(directory, manifest)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Raises ValueError if it is damaged, FileNotFoundError if there is none."""
    path = directory / MANIFEST
    return parse_manifest(read_small(path), str(path))


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Return the content of manifest.json. Raises ValueError, naming path, if it is damaged."""
    content = _unseal("manifest", data, path)
    shards = tuple(Listing(**shard) for shard in content["shards"])
    return Manifest(_header(content), shards, content["complete"])


def parse_index(data: bytes, path: str) -> Index:
    """Return the content of a shard's .json. Raises ValueError, naming path, if it is damaged."""
    content = _unseal("shard", data, path)
    entries = tuple(
        Entry(**{**entry, "captions": tuple(entry["captions"]), "shots": tuple(entry["shots"])})
        for entry in content["entries"]
    )
    return Index(
        content["number"], _header(content), content["bin_sha256"], entries, content["skipped"]
    )


def _header(content: dict[str, Any]) -> Header:
    height, width, channels = content["shape"]
    return Header((height, width, channels), content["fps"], content["source"])


def _with(manifest: Manifest, listing: Listing) -> Manifest:
    others = [shard for shard in manifest.shards if shard.number != listing.number]
    shards = tuple(sorted([*others, listing], key=lambda shard: shard.number))
    return replace(manifest, shards=shards)


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    content = {
        **asdict(manifest.header),
        "complete": manifest.complete,
        "shards": [asdict(shard) for shard in manifest.shards],
    }
    data = _seal("manifest", content)
    write_file(directory / MANIFEST, [data], len(data))


def _seal(kind: str, content: dict[str, Any]) -> bytes:
    return seal_json({"kind": kind, "format": _FORMAT, **content})


def _unseal(kind: str, data: bytes, path: str) -> dict[str, Any]:
    try:
        content = unseal_json(data)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); ingest again, or delete the folder"
        ) from error
    found = content["kind"], content["format"]
    if found != (kind, _FORMAT):
        raise ValueError(f"{path} holds {found}, not {kind, _FORMAT}; it is of another program")
    return content


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
