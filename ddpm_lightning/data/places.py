"""Where the parts of a store lie: a local folder, or any address that fsspec knows.

Shards at another place (s3://, https://, memory://) are brought to a local folder when they are
first used, and checked on the way. A place knows files, not clips.
"""

import contextlib
import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpm_lightning.data.shards import MANIFEST, mark_name
from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.files.bounded import SMALL, read_small, read_stream

_CHUNK_BYTES = 2**22


class LocalPlace:
    """A folder with the files of one part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes:
        """Return a small file's bytes. Raises FileNotFoundError, OSError or ValueError."""
        return read_small(self.folder / name)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def local(self, name: str, num_bytes: int, sha256: str) -> Path:
        """Return a local file with that content. Raises OSError, ValueError if it differs."""
        return self.folder / name

    def mark(self, number: int, cause: str) -> None:
        """Record that a shard is damaged; silent where that cannot be written."""
        with contextlib.suppress(OSError):
            (self.folder / mark_name(number)).write_text(cause + "\n")

    def marked(self, number: int) -> str | None:
        """Return the cause that was recorded for a shard, if any."""
        try:
            return read_small(self.folder / mark_name(number)).decode(errors="replace").strip()
        except FileNotFoundError:
            return None


class RemotePlace:
    """An address, of which shards are copied to a folder below copies that is named by it."""

    def __init__(self, address: str, copies: Path) -> None:
        self.address = address.rstrip("/")
        self._files, self._folder = _opened(self.address)
        self._copies = copies / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return self.address

    def read(self, name: str) -> bytes:
        with self._reading(name), self._files.open(self._at(name), "rb") as file:
            return read_stream(file, SMALL)

    def size(self, name: str) -> int:
        with self._reading(name):
            return int(self._files.size(self._at(name)))

    def local(self, name: str, num_bytes: int, sha256: str) -> Path:
        copy = self._copies / f"{sha256[:16]}-{name}"
        if not copy.is_file() or copy.stat().st_size != num_bytes:
            self._copies.mkdir(parents=True, exist_ok=True)
            write_file(copy, self._checked(name, sha256), num_bytes)
        return copy

    def mark(self, number: int, cause: str) -> None:
        for copy in self._copies.glob(f"*-shard-{number:05d}-*.bin"):  # fetched again next time
            copy.unlink(missing_ok=True)

    def marked(self, number: int) -> str | None:
        return None

    def _checked(self, name: str, sha256: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self._reading(name):
            file = self._files.open(self._at(name), "rb")
        with file:
            while True:
                with self._reading(name):
                    chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    break
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != sha256:
            raise ValueError(f"{self.address}/{name} is not what its manifest says")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each of fsspec's file systems raises its own kinds
            raise ValueError(
                f"{self.address}/{name} cannot be read: {_first_line(error)}"
            ) from error

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}"


Place = LocalPlace | RemotePlace


def place(address: str | Path, copies: Path | None) -> Place:
    """Return the place of an address; copies is the folder for what is not local."""
    text = str(address)
    if "://" not in text:
        return LocalPlace(Path(text))
    if text.startswith("file://"):
        return LocalPlace(Path(text.removeprefix("file://")))
    if copies is None:
        raise ValueError(f"{text} is not a local folder; give one in which its shards can be kept")
    return RemotePlace(text, copies)


def local_folder(path: str) -> Path:
    """Return the path where files are to be written. Raises ValueError for an address."""
    if "://" in path:
        raise ValueError(
            f"cache_path must be a local folder, got {path}; clips that are stored elsewhere are "
            "read with data=clip_store"
        )
    return Path(path)


def find_parts(address: str) -> list[str]:
    """Return the addresses of a store's parts: the folder, or folders in it, with a manifest.

    Raises ValueError if there are none, or the place cannot be read.
    """
    files, folder = _opened(address.rstrip("/"))
    try:
        found = [f"{folder}/{MANIFEST}"] if files.exists(f"{folder}/{MANIFEST}") else []
        found = found or sorted(files.glob(f"{glob.escape(folder)}/*/{MANIFEST}"))
    except Exception as error:  # each of fsspec's file systems raises its own kinds
        raise ValueError(f"{address} cannot be read: {_first_line(error)}") from error
    if not found:
        raise ValueError(
            f"{address} holds no clip store, neither {MANIFEST} nor */{MANIFEST}; give the folder "
            "that python ingest.py names at its end"
        )
    folders = [path.removesuffix(f"/{MANIFEST}") for path in found]
    return [str(files.unstrip_protocol(folder)) for folder in folders]


def _opened(address: str) -> tuple[Any, str]:
    """Return a file system of fsspec's, and the path in it. Raises ValueError."""
    import fsspec  # type: ignore[import-untyped]

    try:
        files, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address} cannot be opened: {error}") from error
    return files, path.rstrip("/")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
