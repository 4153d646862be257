"""Checkpoint files: whole or not at all, checked against a checksum, loaded without running code.

They are sealed zip files.
"""

import io
import logging
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from ddpm_lightning.files.atomic import temporary_of, write_file
from ddpm_lightning.files.bounded import open_regular
from ddpm_lightning.files.sealed import is_sealed_zip, seal_zip

LAST, BEST, STEP = "last.ckpt", "best.ckpt", "step_{:08d}.ckpt"

_log = logging.getLogger(__name__)


class DamagedCheckpoint(ValueError):  # noqa: N818 - a state of a file
    """A checkpoint is not what was written; str() names the file and the reason."""


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint; what was there stays if that fails.

    Raises:
        WriteRefused: with path and bytes.
    """
    buffer = io.BytesIO()
    torch.save(plain(checkpoint), buffer)
    seal_zip(buffer)
    # Left to the collector of cycles, as part of a refusal's traceback, it would crash Python 3.12.
    with buffer.getbuffer() as data:
        write_file(path, [data], len(data))


def read(path: Path, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Return what was written there.

    Args:
        mmap: whether tensors stay in the file until they are used.
    Raises:
        DamagedCheckpoint, FileNotFoundError.
    """
    with _verified(path) as file:
        # Its descriptor, not its path: a run that is resumed replaces the file that has the path.
        source = f"/dev/fd/{file.fileno()}" if mmap else file
        try:
            checkpoint = torch.load(source, map_location, weights_only=True, mmap=mmap)
        except Exception as error:  # what torch raises for foreign bytes has many types
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if isinstance(error, pickle.UnpicklingError):  # torch advises to load it all the same
                reason = "it holds more than tensors and plain values, which could run code"
            raise DamagedCheckpoint(f"{path} is not a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise DamagedCheckpoint(f"{path} is not a checkpoint: it holds a {kind}")
    return checkpoint


@contextmanager
def _verified(path: Path) -> Iterator[BufferedReader]:
    """Open a checkpoint that is what was written."""
    try:
        with open_regular(path) as file:
            if not is_sealed_zip(file):
                raise DamagedCheckpoint(
                    f"{path} is damaged, or of another program: the checksum at its end is not "
                    "that of the rest"
                )
            file.seek(0)
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {error}") from error


def is_whole(path: Path) -> bool:
    """Return whether the file is there and is what was written."""
    try:
        with _verified(path):
            return True
    except (DamagedCheckpoint, FileNotFoundError):
        return False


def link(path: Path, other: Path) -> None:
    """Give the same checkpoint another path, too, without a copy if possible."""
    other.parent.mkdir(exist_ok=True)
    temporary = temporary_of(other)
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        temporary.replace(other)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where both are one file already


def copy(path: Path, other: Path) -> None:
    """Copy a checkpoint, which is not checked, into a folder that may be missing."""
    other.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, other)


def by_step(folder: Path) -> list[Path]:
    """Return the numbered checkpoints, newest first."""
    return sorted(folder.glob(STEP.replace("{:08d}", "[0-9]*")), reverse=True)


def newest_valid(folder: Path) -> Path | None:
    """Return the newest checkpoint that is what was written, None if there is no checkpoint.

    A warning names each newer one that is damaged.

    Raises:
        DamagedCheckpoint: if there are only damaged ones.
    """
    damage: list[DamagedCheckpoint] = []
    for path in filter(os.path.exists, [folder / LAST, *by_step(folder), folder / BEST]):
        try:
            with _verified(path):
                for newer in damage:
                    _log.warning("%s; taking %s instead", newer, path)
                return path
        except DamagedCheckpoint as error:
            damage.append(error)
    if damage:
        raise DamagedCheckpoint(f"no checkpoint in {folder} is whole: {damage[0]}")
    return None


def plain(value: Any) -> Any:
    """Return the same value in dicts, lists, tuples, tensors, strings and numbers.

    Raises:
        TypeError: for all else.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a checkpoint holds plain containers and tensors, not {type(value).__name__}")
