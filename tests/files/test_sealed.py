"""Seals: one byte changed anywhere is noticed, and stores of earlier versions are read."""

import hashlib

import pytest

from ddpm_lightning.files.sealed import seal, seal_json, unseal_json


def test_a_seal_is_the_sha256_of_all_its_parts() -> None:
    assert seal(b"ab", memoryview(b"c")) == hashlib.sha256(b"abc").hexdigest().encode()


def test_sealed_json_is_what_stores_have_always_held() -> None:
    body = b'\n "kind": "manifest",\n "format": 2\n}'
    data = b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'",' + body
    assert seal_json({"kind": "manifest", "format": 2}) == data
    assert unseal_json(data) == {"kind": "manifest", "format": 2}
    for place in range(len(data)):
        with pytest.raises(ValueError, match="checksum"):
            unseal_json(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
