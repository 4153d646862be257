"""Reading what is small by its nature, and perhaps a stranger's: its size is bounded first."""

import errno
import json
import math
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

SMALL = 2**26  # bytes of a manifest, a status, a configuration: more than any has

_CHUNK_BYTES = 2**20


def open_regular(path: Path, most: float = math.inf) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: if it cannot be read, or is no regular file: a pipe could be waited for forever.
        ValueError: if it has more than `most` bytes.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > most:
        raise ValueError(f"{path} has {status.st_size:,} bytes, at most {most:,} are read")
    return path.open("rb")


def read_small(path: Path, most: int = SMALL) -> bytes:
    """Return a file's bytes. Raises OSError, ValueError as open_regular does."""
    with open_regular(path, most) as file:
        return read_stream(file, most)


def read_json(path: Path, most: int = SMALL) -> Any:
    """Return the content of a JSON file of at most so many bytes. Raises OSError, ValueError."""
    try:
        return json.loads(read_small(path, most))
    except RecursionError as error:
        raise ValueError(f"{path} is too deep") from error


def read_stream(file: Any, most: int) -> bytes:
    """Return the bytes that a file has; where it has more than `most`, at least one more of them.

    One on another machine may hand out less at a time than it is asked for.
    """
    chunks, size = [], 0
    while size <= most and (chunk := file.read(_CHUNK_BYTES)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
