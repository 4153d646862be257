"""python inspect_data.py: what is stored, and on demand whether all of it is whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, Call, write_gifs

WORDS = ["data=gif_folder", "data.path=gifs", "data.size=8", "data.num_frames=4", "num_samples=4"]


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


@pytest.mark.slow
def test_a_store_is_opened_without_lightning_and_wandb(tmp_path: Path) -> None:
    """In a process of its own, whose modules are those of the command."""
    write_gifs(tmp_path / "gifs")
    program = (
        f"import runpy, sys; runpy.run_path({str(ROOT / 'inspect_data.py')!r}, None, '__main__');"
        "print(*sorted({'torch', 'lightning', 'wandb'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *WORDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "torch"
