"""Sealed files: each holds the SHA-256 of all its other bytes, so that any damage is noticed.

The 64 digits lie where other programs look past them: in the first key of a JSON file, in the
comment that ends a zip file, such as torch.save writes, or in the metadata of safetensors. A file
and its seal are replaced in one step.
"""

import hashlib
import json
from collections.abc import Mapping
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

NUM_DIGITS = 64
_CHUNK_BYTES = 2**20
_JSON_SEAL = b'{"sha256": "%s",'  # instead of the opening brace
_JSON_SEAL_BYTES = len(_JSON_SEAL % bytes(NUM_DIGITS))


def seal(*parts: bytes | memoryview) -> bytes:
    """Return the digits for a file of which these are all other bytes, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def seal_json(content: Mapping[str, Any]) -> bytes:
    """Return a sealed JSON file with at least one key."""
    body = json.dumps(content, indent=1).encode()[1:]
    return _JSON_SEAL % seal(body) + body


def unseal_json(data: bytes) -> dict[str, Any]:
    """Return the content. Raises ValueError if it is not what was sealed."""
    body = data[_JSON_SEAL_BYTES:]
    if data[:_JSON_SEAL_BYTES] != _JSON_SEAL % seal(body):
        raise ValueError("its checksum differs")
    content: dict[str, Any] = json.loads(b"{" + body)
    return content


def seal_zip(file: BytesIO) -> None:
    """Append the seal to a zip file that has no comment."""
    file.seek(-2, SEEK_END)
    file.write(NUM_DIGITS.to_bytes(2, "little"))  # the length of the comment
    with file.getbuffer() as data:
        digits = seal(data)
    file.write(digits)


def is_sealed_zip(file: BinaryIO) -> bool:
    """Return whether a zip file, read from here, is what was sealed."""
    digest, end = hashlib.sha256(), b""
    while chunk := file.read(_CHUNK_BYTES):
        end += chunk
        digest.update(memoryview(end)[:-NUM_DIGITS])
        end = end[-NUM_DIGITS:]
    return end == digest.hexdigest().encode()
