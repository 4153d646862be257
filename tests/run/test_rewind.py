"""A run that goes on from an earlier checkpoint, and what it had trained beyond it."""

import signal
from pathlib import Path

import pytest
import yaml

from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.errors import Stopped
from ddpm_lightning.run.slurm import requeued
from ddpm_lightning.training.checkpoint_io import by_step, link, newest_valid, read, remove
from tests.commands import TINY, Call, assert_user_error

pytestmark = pytest.mark.slow  # as a whole, not one by one

POWER = "{_target_: ddpm_lightning.training.averages.PowerDecay, relative_length: 0.1}"


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in by_step(folder)]


@pytest.fixture
def run(call: Call, tmp_path: Path) -> Path:
    """After six steps, with a checkpoint and a snapshot of each."""
    words = [
        "callbacks.samples.every_n_steps=2",
        "logger=csv",
        "run_dir=out",
        "trainer.max_steps=6",
        "callbacks.checkpoints.keep=10",
    ]
    often = ["callbacks.checkpoints.every_n_steps=1", "callbacks.ema.snapshot_every_n_steps=1"]
    average = f"+callbacks.ema.averages.power={POWER}"
    assert call("train", *TINY, *words, *often, average).code == 0
    return tmp_path / "out"


def test_what_lay_beyond_becomes_a_run_of_its_own(call: Call, run: Path) -> None:
    curve = read_metrics(run / "metrics.csv")["train/loss"]
    third = run / "checkpoints" / "step_00000003.ckpt"
    words = ["callbacks.checkpoints.keep=2", "optimizer.lr=1e-3", "trainer.max_steps=5"]
    result = call("train", f"resume={third}", *words)
    assert result.code == 0, result.err
    aside = run / "abandoned_1"
    assert "what was trained after step 3 is a run of its own: out/abandoned_1" in result.out

    assert steps(run / "checkpoints") == [5, 4]
    assert read(run / "checkpoints" / "last.ckpt")["global_step"] == 5
    assert read(run / "checkpoints" / "best.ckpt")["global_step"] <= 5
    assert steps(run / "averages") == [5, 4, 3, 2, 1]
    assert max(read_metrics(run / "metrics.csv")["train/loss"][0]) == 4
    with (run / "checkpoints" / "last.ckpt").open("r+b") as file:
        file.write(b"rot")  # step 5 is the same file
    assert newest_valid(run / "checkpoints") == run / "checkpoints" / "step_00000004.ckpt"

    assert steps(aside / "checkpoints") == [6, 5, 4]
    assert steps(aside / "averages") == [6, 5, 4, 3, 2, 1]
    assert read_metrics(aside / "metrics.csv")["train/loss"] == curve
    pictures = {path.name for path in (aside / "samples").iterdir()}
    assert pictures == {"step_000004.gif", "step_000006.gif", "final.gif", "reverse.gif"}
    for weights in ("ema", "0.08"):
        words = [f"checkpoint={aside}", f"weights={weights}", f"output=of_{weights}"]
        sampled = call("sample", *words, "num_samples=1")
        assert f"(step 6, {weights} weights)" in sampled.out, sampled.err
    result = call("train", f"resume={aside}", "trainer.max_steps=7")
    assert result.code == 0, result.err
    ids = {
        yaml.safe_load((folder / "config.yaml").read_text())["run_id"] for folder in (run, aside)
    }
    assert len(ids) == 2
    assert len(read_metrics(aside / "metrics.csv")["train/loss"][0]) == 7


def test_the_best_alone_can_be_gone_on_from(call: Call, run: Path) -> None:
    """Though nothing is trained; and what killed processes left half written is removed."""
    second = run / "checkpoints" / "step_00000002.ckpt"
    best, last = second.with_name("best.ckpt"), second.with_name("last.ckpt")
    link(second, best)
    remove(second)
    (run / "averages" / ".step_00000009.ckpt.123-0123abcd").touch()
    (run / ".status.json.123-0123abcd").touch()
    result = call("train", f"resume={best}", "trainer.max_steps=2")
    assert result.code == 0, result.err
    assert steps(run / "checkpoints") == [1]
    assert newest_valid(run / "checkpoints") == last
    assert [read(path)["global_step"] for path in (best, last)] == [2, 2]
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


def test_the_best_is_taken_where_no_other_is_whole(call: Call, run: Path) -> None:
    second = run / "checkpoints" / "step_00000002.ckpt"
    link(second, second.with_name("best.ckpt"))
    remove(second)
    for path in second.parent.glob("*.ckpt"):
        if path.name != "best.ckpt":
            path.write_bytes(b"")
    sampled = call("sample", f"checkpoint={run}", "num_samples=1")
    assert "(step 2, ema weights)" in sampled.out, sampled.err


def test_a_requeued_job_does_not_go_back_again(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM starts it with the same words."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    words = ["resume=out/checkpoints/step_00000002.ckpt", "trainer.max_steps=6"]
    with pytest.raises(Stopped), requeued(run, Path("outputs"), words):
        raise Stopped(signal.SIGTERM)
    result = call("train", *words)
    assert result.code == 0, result.err
    assert "out/checkpoints/last.ckpt, step 6" in result.out
    assert not (run / "abandoned_1").exists()


def test_a_damaged_snapshot_is_told_in_one_line(call: Call, run: Path) -> None:
    with (run / "averages" / "step_00000002.ckpt").open("r+b") as file:
        file.write(b"rot")
    result = call("sample", f"checkpoint={run}", "weights=0.08")
    assert_user_error(result, "averages/step_00000002.ckpt is damaged")
