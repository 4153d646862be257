"""Whole small files by address: a local path, or whatever fsspec can open.

An address with :// (file://, memory://, https://, s3://) goes through fsspec, which the extra
`tgif` installs; a plain path needs nothing. What gzip, bzip2 or xz has packed is unpacked.
"""

import bz2
import gzip
import lzma
from importlib import import_module
from io import BytesIO
from typing import Any

from ddpm_lightning.files.bounded import read_stream

_MAX_BYTES = 2**30
# By a file's first bytes.
_UNPACK: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_ARCHIVES = {b"PK\3\4": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_TGIF_EXTRA = "pip install ddpm_lightning[tgif]"


def read_file(address: str) -> bytes:
    """The bytes at an address, all of them, unpacked.

    Raises ValueError, in one line, when there is no such file, when it cannot be read to its end,
    when it exceeds 1 GiB, packed or not, when it is an archive, and when a package is missing.
    """
    remote = "://" in address
    opener = optional_module("fsspec", address, _TGIF_EXTRA).open if remote else open
    try:
        with opener(address, "rb") as file:
            data = read_stream(file, _MAX_BYTES)
        for unpack in [unpack for magic, unpack in _UNPACK.items() if data.startswith(magic)]:
            data = read_stream(unpack(BytesIO(data)), _MAX_BYTES)
    except ImportError as error:  # fsspec is here, what it needs for this address is not
        raise ValueError(f"{address} cannot be opened: {one_line(error)}; {_TGIF_EXTRA}") from error
    except Exception as error:  # each of fsspec's file systems raises its own kinds
        why = error.__cause__ or error  # HTTP calls whatever stops a connection "not found"
        if isinstance(why, FileNotFoundError):
            raise ValueError(f"{address} does not exist; give a path or an address") from error
        raise ValueError(f"{address} cannot be read: {one_line(why)}") from error
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{address} has more than {_MAX_BYTES:,} bytes; split it")
    for kind in [kind for magic, kind in _ARCHIVES.items() if data.startswith(magic)]:
        raise ValueError(f"{address} is a {kind} archive; unpack it first")
    return data


def optional_module(name: str, address: str, install: str) -> Any:
    """A module that not every installation has; a ValueError says for which file it is needed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{address} needs the package {name}; {install}") from error


def one_line(error: BaseException) -> str:
    """The kind of an error and its message, whatever line breaks that has."""
    return " ".join(f"{type(error).__name__}: {error}".split())
