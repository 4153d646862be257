"""A folder of files of one kind, searched at every depth: GIFs here, videos beside."""

import hashlib
import json
import os
from pathlib import Path

from ddpm_lightning.data.gif_blocks import DEFAULT_LIMITS, GifError
from ddpm_lightning.data.sources.base import Source
from ddpm_lightning.data.sources.captions import read_captions
from ddpm_lightning.files.bounded import read_small


def read_picture(path: Path, most: int = DEFAULT_LIMITS.max_bytes) -> bytes:
    """Return a file's bytes; GifError unless it is a regular file of at most so many."""
    try:
        return read_small(path, most)
    except OSError as error:
        raise GifError("unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise GifError("too_large", str(error)) from error


class FileFolder(Source):
    """Every file below path whose name ends in one of `suffixes`, in any case.

    Keys are paths relative to the folder, with forward slashes. The files are listed once, here.
    Links are followed, each folder and file once. A folder that cannot be read is a key, too.
    A file captions.tsv in the folder has captions, see data.sources.captions.
    Raises ValueError if path is missing, is no folder, holds no such file, or captions of none.
    """

    suffixes: tuple[str, ...]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        kind = " or ".join(self.suffixes)
        if not self.path.is_dir():
            problem = "is not a folder" if self.path.exists() else "does not exist"
            raise ValueError(f"data.path={path} {problem}; give a folder that holds {kind} files")
        found, unread = _walk(self.path, self.suffixes)
        if not found:
            raise ValueError(f"data.path={path} holds no {kind} file; put some in, at any depth")
        self._keys = sorted(file.relative_to(self.path).as_posix() for file in found + unread)
        self._captions = read_captions(self.path, self._keys)

    def keys(self) -> list[str]:
        return list(self._keys)

    def read(self, key: str) -> bytes:
        return read_picture(self.path / key, self.limits.max_bytes)

    def label(self, key: str) -> str:
        """Return the folder that the file lies in, below path; empty in path itself."""
        return key.rpartition("/")[0]

    def captions(self, key: str) -> tuple[str, ...]:
        return self._captions.get(key, ())

    def fingerprint(self) -> str:
        """Over the sorted keys with the size and modification time of each file, and captions."""
        digest = hashlib.sha256()
        for key in self._keys:
            digest.update(f"{key}\0{self._state(key)}\0".encode("utf-8", "surrogateescape"))
        if self._captions:
            digest.update(json.dumps(sorted(self._captions.items())).encode())
        return digest.hexdigest()

    def _state(self, key: str) -> str:
        try:
            status = (self.path / key).stat()
        except OSError:
            return "unreadable"
        return f"{status.st_size} {status.st_mtime_ns}"

    def describe(self) -> str:
        return str(self.path)


class GifFolder(FileFolder):
    """The .gif files of a folder."""

    suffixes = (".gif",)


def _walk(top: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder, each once, and the folders that cannot be read."""
    unread: list[Path] = []
    seen, files = {os.path.realpath(top)}, dict[str, Path]()
    walk = os.walk(top, onerror=lambda e: unread.append(Path(e.filename)), followlinks=True)
    for folder, below, names in walk:
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))
            if real in seen:
                below.remove(name)
            seen.add(real)
        below.sort()
        own = os.path.realpath(folder)
        for name in sorted(name for name in names if name.lower().endswith(suffixes)):
            path = Path(folder, name)
            if path.is_symlink():
                files.setdefault(os.path.realpath(path), path)
            else:
                files[os.path.join(own, name)] = path
    return list(files.values()), unread
