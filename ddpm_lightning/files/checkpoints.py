"""Checkpoint files: whole or not at all, checked against a checksum, loaded without running code.

x.ckpt has x.ckpt.sha256 beside it, as `sha256sum` writes it; while x.ckpt is being replaced, that
holds the old file's line as well as the new one's, so that either file is found valid whenever the
process dies.
"""

import hashlib
import io
import logging
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddpm_lightning.files.atomic import remove_temporaries, temporary_of, write_file

LAST, BEST, STEP = "last.ckpt", "best.ckpt", "step_{:08d}.ckpt"
_DIGEST = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class DamagedCheckpoint(ValueError):  # noqa: N818 - a state of a file
    """A checkpoint is not what was written; str() names the file and the reason."""


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint and its checksum; what was there stays if that fails.

    Raises:
        WriteRefused: with path and bytes.
    """
    buffer = io.BytesIO()
    torch.save(plain(checkpoint), buffer)
    # Left to the collector of cycles, as part of a refusal's traceback, it would crash Python 3.12.
    with buffer.getbuffer() as data:
        digest = hashlib.sha256(data).hexdigest()
        _write_digests(path, [digest, *_digests(path)])
        write_file(path, [data], len(data))
        _write_digests(path, [digest])


def read(path: Path, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Return what was written there.

    Args:
        mmap: whether tensors stay in the file until they are used.
    Raises:
        DamagedCheckpoint, FileNotFoundError.
    """
    if not mmap:
        return _load(io.BytesIO(verified(path)), path, map_location)
    own = temporary_of(path)  # a run that is resumed would replace the file while it is read
    try:
        os.link(path, own)
    except OSError:  # a file system without hard links, or a directory that is not ours
        return read(path, map_location)
    try:
        _verify(own.read_bytes(), path)
        return _load(own, path, map_location)
    finally:
        own.unlink()


def _load(source: io.BytesIO | Path, path: Path, map_location: Any) -> dict[str, Any]:
    is_mapped = isinstance(source, Path)
    try:
        checkpoint = torch.load(
            source, map_location=map_location, weights_only=True, mmap=is_mapped
        )
    except Exception as error:  # what torch raises for foreign bytes has many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # torch advises to load it all the same
            reason = "it holds more than tensors and plain values, which could run code"
        raise DamagedCheckpoint(f"{path} is not a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise DamagedCheckpoint(f"{path} is not a checkpoint: it holds a {kind}")
    return checkpoint


def verified(path: Path) -> bytes:
    """Return the bytes of the file.

    Raises:
        DamagedCheckpoint: if their checksum is another, or is missing.
        FileNotFoundError: if there is no such file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, MemoryError) as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {error or 'it is too large'}") from error
    _verify(data, path)
    return data


def _verify(data: bytes, path: Path) -> None:
    digests = _digests(path)
    if not digests:
        raise DamagedCheckpoint(
            f"{path} has no checksum beside it; if you trust it, write one: "
            f"sha256sum {path.name} > {path.name}.sha256"
        )
    if hashlib.sha256(data).hexdigest() not in digests:
        raise DamagedCheckpoint(f"{path} is damaged: its checksum is not that of {path}.sha256")


def is_whole(path: Path) -> bool:
    """Return whether the file is there and is what was written."""
    try:
        verified(path)
    except (DamagedCheckpoint, FileNotFoundError):
        return False
    return True


def link(path: Path, other: Path) -> None:
    """Give the same checkpoint another path, too, without a copy if possible."""
    other.parent.mkdir(exist_ok=True)
    temporary = temporary_of(other)
    digests = _digests(path)
    _write_digests(other, [*digests, *_digests(other)])
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        temporary.replace(other)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where both are one file already
    _write_digests(other, digests)


def copy(path: Path, other: Path) -> None:
    """Copy a checkpoint with its checksum, which is not checked."""
    other.parent.mkdir(exist_ok=True)
    _write_digests(other, _digests(path))
    shutil.copyfile(path, other)


def remove(path: Path) -> None:
    """Remove a checkpoint, then its checksum, which `sweep` removes where it is left alone."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written; no other process may write there."""
    remove_temporaries(folder)
    for path in folder.glob("*.ckpt.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()


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
            verified(path)
        except DamagedCheckpoint as error:
            damage.append(error)
            continue
        for newer in damage:
            _log.warning("%s; taking %s instead", newer, path)
        return path
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


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    try:
        words = _sidecar(path).read_text().split()
    except (OSError, UnicodeDecodeError, MemoryError):
        return []
    return [word for word in words if _DIGEST.fullmatch(word)]


def _write_digests(path: Path, digests: list[str]) -> None:
    data = "".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)).encode()
    write_file(_sidecar(path), [data], len(data))
