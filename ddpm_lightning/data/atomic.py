"""Folders that appear whole or not at all, even when several processes write the same one."""

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


def write_folder(
    folder: Path, write: Callable[[Path], None], is_valid: Callable[[Path], bool]
) -> None:
    """Make folder hold what write puts into a temporary folder beside it.

    Whatever lies at folder and is not valid is deleted. When another process was first with a
    valid folder, that one stays. An exception in write leaves everything as it was.
    Raises OSError, with one line naming the folder, when the disk refuses.
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
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {folder}: {error.strerror}; free some space or choose another folder",
        ) from error


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
