"""Runs that are killed with kill -9 anywhere, and go on: to the bit what they would have been."""

import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ddpm_lightning.data.gif import decode
from ddpm_lightning.files.checkpoints import newest_valid, read
from ddpm_lightning.plots.curves import read_metrics
from tests.commands import TINY, Process, start, wait_for, write_gifs
from tests.training.test_resume import differences, kept

SAVE_INTERVAL = 3
WORDS = [
    *TINY,
    "logger=csv",
    "run_dir=out",
    f"callbacks.checkpoints.every_n_steps={SAVE_INTERVAL}",
    "trainer.val_check_interval=7",
    "trainer.log_every_n_steps=2",
    "data.batch_size=4",
    "data.flip=true",
    "data.fps_jitter=0.2",
    "callbacks.samples.every_n_steps=11",
]

Row = tuple[int, list[int], list[int], str]


@pytest.fixture(autouse=True)
def other_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files of others are where renaming to the run is not possible."""
    monkeypatch.setenv("TMPDIR", "/dev/shm")


def begin(folder: Path, *words: str, cold: bool = False) -> Process:
    """train.py with a record of its steps."""
    folder.mkdir(exist_ok=True)
    if not (folder / "gifs").exists():
        write_gifs(folder / "gifs", 13, num_frames=8)
    return start(folder, "tests/run/recorder", *words, cold=cold)


def complete(folder: Path, *words: str, cold: bool = False) -> None:
    process = begin(folder, *words, cold=cold)
    try:
        output = process.communicate(timeout=1200)
        assert process.returncode == 0, output
    finally:
        process.kill()


def rows(folder: Path, rank: int = 0) -> list[Row]:
    path = folder / f"steps-{rank}.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last may be cut
    return [tuple(json.loads(line)) for line in lines]


def half_written(folder: Path) -> set[Path]:
    return set((folder / "out" / "checkpoints").glob(".*"))


def is_due(folder: Path, num_rows: int, before: set[Path] | None) -> bool:
    """Whether so many steps are recorded or, if asked for, a checkpoint is just being written:
    there is a temporary file that was not there before.
    """
    if before is not None and half_written(folder) - before:
        return True
    path = folder / "steps-0.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") >= num_rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_kills", "num_steps"), [(2, 20), pytest.param(50, 500, marks=pytest.mark.long)]
)
def test_a_run_killed_again_and_again_is_the_same_to_the_bit(
    num_kills: int, num_steps: int, tmp_path: Path
) -> None:
    words = [*WORDS, f"trainer.max_steps={num_steps}"]
    complete(tmp_path / "whole", *words)
    whole = rows(tmp_path / "whole")
    assert [row[0] for row in whole] == list(range(num_steps))

    rng, folder = random.Random(num_kills), tmp_path / "killed"
    for kill in range(num_kills):
        known, before = len(rows(folder)), half_written(folder)
        process = begin(folder, *(words if kill == 0 else ["resume=out"]))
        try:
            in_save = kill % 5 == 1
            most = num_steps // num_kills
            target = known + (most if in_save else rng.randint(1, most - 1))
            due = partial(is_due, folder, target, before if in_save else None)
            wait_for(due, 600, every=0.0002 if in_save else 0.01)
            if not in_save:
                time.sleep(rng.uniform(0, 0.05))
        finally:
            process.kill()
            process.wait()
        reached = rows(folder)[-1][0]
        saved = newest_valid(folder / "out" / "checkpoints")
        last = int(read(saved)["global_step"]) if saved else 0
        assert reached - last <= SAVE_INTERVAL
    complete(folder, "resume=out")

    for row in rows(folder):
        assert row == whole[row[0]]
    assert {row[0] for row in rows(folder)} == set(range(num_steps))
    checkpoints = [tmp_path / name / "out" / "checkpoints" for name in ("whole", "killed")]
    ends = [kept(read(path / "last.ckpt")) for path in checkpoints]
    assert differences(ends[0], ends[1]) == []
    curves = [read_metrics(path.parent / "metrics.csv") for path in checkpoints]
    names = [name for name in curves[0] if "by_log_snr/" in name]
    assert {name.split("/")[0] for name in names} == {"train_by_log_snr", "val_by_log_snr"}
    for name in (
        *names,
        "train/loss",
        "val/loss",
        "val/error",
        "train/grad_norm",
        "train/learning_rate",
    ):
        assert curves[0][name] == curves[1][name]
    assert not list(checkpoints[1].glob(".*"))
    status = json.loads((folder / "out" / "status.json").read_text())
    assert status["status"] == "finished"


@pytest.mark.long
def test_another_number_of_devices_goes_on_with_the_same_samples_and_losses(
    tmp_path: Path,
) -> None:
    """From one process with batches of 4 to two with batches of 2 each, over gloo."""
    words = [*WORDS, "trainer.log_every_n_steps=4", "callbacks.checkpoints.keep=9"]
    complete(tmp_path / "one", *words, "trainer.max_steps=12")
    one = rows(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for path in (tmp_path / "two").glob("steps-*"):
        path.unlink()
    # Losses by log-SNR are logged every fourth step: those of step 8 wait in the checkpoint, and
    # with those of steps 9 and 10 in the next ones.
    words = ["resume=out/checkpoints/step_00000009.ckpt", "run_dir=fork", "data.batch_size=2"]
    words.append("callbacks.checkpoints.every_n_steps=1")
    complete(tmp_path / "two", *words, "trainer.devices=2", "+trainer.strategy=ddp", cold=True)
    ranks = [rows(tmp_path / "two", rank) for rank in range(2)]
    assert [row[0] for row in ranks[0]] == [row[0] for row in ranks[1]] == list(range(9, 12))
    for first, second, both in zip(*ranks, one[9:], strict=True):
        assert sorted(first[1] + second[1]) == both[1]
        clips = dict(zip(first[1] + second[1], first[2] + second[2], strict=True))
        assert [clips[number] for number in both[1]] == both[2]
        loss = (float.fromhex(first[3]) + float.fromhex(second[3])) / 2
        assert loss == pytest.approx(float.fromhex(both[3]), rel=1e-6)
    runs = [tmp_path / "one" / "out", tmp_path / "two" / "fork"]
    curves = [read_metrics(run / "metrics.csv") for run in runs]
    names = [name for name in curves[0] if name.startswith("train_by_log_snr/")]
    for name in ("train/loss", *names):
        assert curves[0][name][0] == curves[1][name][0]
        assert curves[0][name][1] == pytest.approx(curves[1][name][1], rel=1e-6)
    grids = [run / "samples" / "final.gif" for run in runs]
    frames = [decode(path.read_bytes()).frames.astype(int) for path in grids]
    assert abs(frames[0] - frames[1]).mean() < 0.1  # of 255: rounding, in some pixel


@pytest.mark.long
def test_a_killed_loader_process_ends_the_run_which_goes_on_to_the_bit(tmp_path: Path) -> None:
    """What was trained after the last checkpoint is trained again, and is the same."""
    process = begin(tmp_path, *WORDS, "data.num_workers=2", "trainer.max_steps=100000")
    try:
        wait_for(lambda: len(rows(tmp_path)) > 20, 600)
        victim = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        os.kill(int(victim), signal.SIGKILL)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    assert f"DataLoader worker (pid {victim})" in last
    assert "killed by signal" in last
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert status["status"] == "failed"
    assert victim in status["error"]
    first = rows(tmp_path)
    complete(tmp_path, "resume=out", f"trainer.max_steps={len(first) + 5}")
    again = rows(tmp_path)[len(first) :]
    assert first[0][0] < again[0][0] <= len(first)
    assert [row[0] for row in again] == list(range(again[0][0], len(first) + 5))
    assert again[: len(first) - again[0][0]] == first[again[0][0] :]
