"""Files and folders that appear whole or not at all, also when several processes write the same."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}")  # as temporary_of names it
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


class WriteRefused(OSError):  # noqa: N818 - it is one more OSError
    """A disk is full, read-only or broken; str() is one line with the path and the bytes."""

    reason: str
    num_bytes: int | None


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
        raise _refused(path, error.errno, error.strerror, num_bytes) from error
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

    Whatever lies at folder and is not valid is deleted. When another process was first with a
    valid folder, that one stays. An exception in write leaves everything as it was.
    Raises:
        WriteRefused: if the disk does not take it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            content = temporary / "content"  # made by mkdir, so with the usual permissions
            content.mkdir()
            write(content)
            while not _renamed(content, folder) and not is_valid(folder):
                _move_aside(folder, temporary, is_valid)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except WriteRefused as error:  # the temporary folder's name would say nothing
        raise _refused(folder, error.errno, error.reason, error.num_bytes) from error
    except OSError as error:
        raise _refused(folder, error.errno, error.strerror) from error


def _refused(
    path: Path, code: int | None, reason: str | None, num_bytes: int | None = None
) -> WriteRefused:
    needs = f"; {num_bytes:,} bytes are needed" if num_bytes is not None else ""
    advice = "free some space or choose another folder"
    error = WriteRefused(code, f"cannot write {path}: {reason}{needs}; {advice}")
    error.reason, error.num_bytes = str(reason), num_bytes
    return error


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk itself, so that a rename survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renamed(content: Path, folder: Path) -> bool:
    try:
        content.rename(folder)  # replaces an empty folder, refuses any other
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        return False
    return True


def _move_aside(folder: Path, temporary: Path, is_valid: Callable[[Path], bool]) -> None:
    old = Path(tempfile.mkdtemp(dir=temporary)) / "old"
    try:
        folder.rename(old)
    except FileNotFoundError:
        return  # another process was quicker
    if is_valid(old):  # another process replaced it since we looked
        _renamed(old, folder)
