"""Files and folders that appear whole or not at all, also when several processes write the same."""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ddpm_lightning.files.lock import ProcessLock

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}")  # as temporary_of names it


class WriteRefused(OSError):  # noqa: N818 - it is one more OSError
    """A disk is full, read-only or broken; str() is one line with the path and the bytes."""


def write_file(path: Path, parts: Iterable[bytes | memoryview], num_bytes: int) -> None:
    """Make path hold the parts, num_bytes in all; what was there stays until they are on the disk.

    Raises:
        WriteRefused: if the disk does not take them.
    """
    temporary = temporary_of(path)
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())  # else a crash could leave a renamed file without content
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error, f"; {num_bytes:,} bytes are needed") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return a name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes have left half written; no other process may write there."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def write_folder(
    folder: Path, write: Callable[[Path], None], is_valid: Callable[[Path], bool]
) -> None:
    """Make folder hold what `write` puts into a temporary folder beside it.

    Whatever lies at folder and is not valid is deleted. One process at a time writes it, under the
    lock file .NAME.lock beside it; the others then find a valid folder, which stays. An exception
    in write leaves everything as it was.
    Raises:
        WriteRefused: if the disk does not take it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = ProcessLock(folder.with_name(f".{folder.name}.lock"), wait=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            if is_valid(folder):
                return
            content = temporary / "content"  # made by mkdir, so with the usual permissions
            content.mkdir()
            write(content)
            if folder.exists():
                shutil.rmtree(folder)
            content.rename(folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            lock.release()
    except WriteRefused:
        raise
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(path: Path, error: OSError, needs: str = "") -> WriteRefused:
    advice = "free some space or choose another folder"
    return WriteRefused(error.errno, f"cannot write {path}: {error.strerror}{needs}; {advice}")


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk itself, so that a rename survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
