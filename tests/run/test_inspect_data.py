"""python inspect_data.py: what is stored, and on demand whether all of it is whole."""

from pathlib import Path

import pytest

from tests.commands import Call

WORDS = ["data=gif_folder", "data.path=gifs", "data.size=8", "data.num_frames=4", "num_samples=4"]


@pytest.mark.slow
def test_a_flipped_bit_is_found_on_demand(call: Call, tmp_path: Path) -> None:
    whole = call("inspect_data", *WORDS, "verify=true")
    assert whole.code == 0, whole.err
    assert "8 clips" in whole.out
    assert "damaged" not in whole.out
    (shard,) = (tmp_path / "data" / "cache").rglob("*.bin")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    found = call("inspect_data", *WORDS, "verify=true")
    assert found.code == 0, found.err
    assert "damaged shards 1" in found.out
    assert shard.name in (tmp_path / "outputs" / "data.html").read_text()
