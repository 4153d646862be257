"""The spool: decoded clips that wait until their block is complete, a file each.

A file holds a line of JSON, with the checksum of the clip, and the clip's bytes. It appears whole,
but is not forced onto the disk: what a power loss takes is fetched again.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ddpm_lightning.data.decode import Decoded
from ddpm_lightning.files.bounded import read_small

_MAX_BYTES = 2**27


class Spool:
    """Keeps clips in a folder, by URL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, url: str, decoded: Decoded) -> None:
        clip = decoded.clip
        header = {"shape": clip.shape, "crc32": zlib.crc32(clip.data), **decoded.facts()}
        path = self._path(url)
        temporary = path.with_name(f".{path.name}")
        try:
            with temporary.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(clip.data)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"cannot write {path}: {error.strerror}; {clip.nbytes:,} bytes are needed; "
                "free some space or choose another folder",
            ) from error

    def get(self, url: str) -> Decoded | None:
        """Return the clip of a URL; None where there is none, or not all of it."""
        try:
            line, content = read_small(self._path(url), _MAX_BYTES).split(b"\n", 1)
            header = json.loads(line)
            clip = np.frombuffer(content, np.uint8).reshape(header["shape"])
            if zlib.crc32(content) != header["crc32"]:
                return None
            facts = {name: header[name] for name in Decoded._fields[1:]}
            return Decoded(clip, **facts | {"shots": tuple(header["shots"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def holds(self, url: str) -> bool:
        return self._path(url).exists()

    def keep(self, urls: Iterable[str]) -> None:
        """Remove all files but those of these URLs."""
        kept = {self._path(url) for url in urls}
        for path in set(self.directory.iterdir()) - kept:
            path.unlink()

    def drop(self, url: str) -> None:
        self._path(url).unlink(missing_ok=True)

    def _path(self, url: str) -> Path:
        return self.directory / hashlib.sha256(url.encode()).hexdigest()[:32]
