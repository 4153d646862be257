"""Losses of twenty steps of four unlike configurations, as they were recorded in golden.json.

A refactor leaves them as they are: to the bit on the machine that recorded them, within float32's
round-off over twenty steps elsewhere. `python -m tests.run.test_golden` records them anew, which a
commit that does so explains.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from ddpm_lightning.plots.curves import read_metrics
from tests.commands import newest_run, spawn

FILE = Path(__file__).with_name("golden.json")
NAMES = ("train/loss", "val/loss", "val/error")
COMMON = (
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=20",
    "trainer.val_check_interval=20",
    "trainer.log_every_n_steps=1",
    "~callbacks.samples",
    "data.source.num_clips=64",
    "data.size=8",
    "data.num_frames=4",
    "data.batch_size=4",
    "network.base_width=24",
    "network.patch=1",
    "condition=none",
)
CONFIGURATIONS = {
    "standard cosine velocity": ["model=standard", "noise=cosine"],
    "median hybrid epsilon min_snr": [
        *("model=median", "noise=hybrid", "objective=epsilon", "loss=min_snr")
    ],
    "continuous linear karras edm": [
        *("model=continuous", "noise=linear", "objective=karras", "loss=edm"),
        "times=uniform_log_snr",
    ],
    "median cosine clean hybrid_vlb": [
        *("model=median", "noise=cosine", "objective=clean", "loss=hybrid_vlb")
    ],
}


FIRST = (
    "standard cosine velocity",
    "median hybrid epsilon min_snr",
)  # of make test; all: test-long


def losses(folder: Path, name: str) -> dict[str, list[float]]:
    """Train a configuration and return its losses at every step that has them."""
    result = spawn(folder, "train", *COMMON, *CONFIGURATIONS[name])
    assert result.code == 0, result.err
    metrics = read_metrics(newest_run(folder) / "metrics.csv")
    return {key: list(metrics[key][1]) for key in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n if n in FIRST else pytest.param(n, marks=pytest.mark.long) for n in CONFIGURATIONS],
)
def test_losses_are_those_that_were_recorded(name: str, tmp_path: Path) -> None:
    golden = json.loads(FILE.read_text())[name]
    for key, values in losses(tmp_path, name).items():
        assert values == pytest.approx(golden[key], rel=1e-4)


def record() -> None:
    """Write golden.json, and print what is no longer equal to the bit."""
    before = json.loads(FILE.read_text()) if FILE.exists() else {}
    after = {}
    for name in CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as folder:
            after[name] = losses(Path(folder), name)
        print("equal" if after[name] == before.get(name) else "differs", name, file=sys.stderr)
    FILE.write_text(json.dumps(after, indent=1) + "\n")


if __name__ == "__main__":
    record()
