"""Runs that end early, by a signal, a damaged file, NaN or SLURM, and how they go on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ddpm_lightning.data.gif import decode
from ddpm_lightning.files.checkpoints import newest_valid, read
from ddpm_lightning.plots.curves import read_metrics
from tests.commands import TINY, Call, spawn, start, wait_for, write_gifs

pytestmark = pytest.mark.slow  # all of them


@pytest.mark.parametrize(
    ("number", "code", "logger"),
    [
        (signal.SIGINT, 130, "csv"),
        pytest.param(signal.SIGTERM, 143, "wandb", marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, "csv", marks=pytest.mark.long),
    ],
)
def test_a_signal_saves_the_last_step_and_says_how_to_go_on(
    number: signal.Signals, code: int, logger: str, tmp_path: Path
) -> None:
    """And how to send what W&B has kept."""
    write_gifs(tmp_path / "gifs")
    words = ["run_dir=out", f"logger={logger}", "callbacks.samples.first_step=3"]
    endless = ["trainer.max_steps=100000", "trainer.val_check_interval=100000"]
    process = start(tmp_path, "train", *TINY, *words, *endless)
    try:
        wait_for(lambda: list(tmp_path.rglob("step_000003.gif")))
        process.send_signal(number)
        out, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == code
    assert ("wandb sync out/wandb/offline-run-" in out) == (logger == "wandb")
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last == f"interrupted by {number.name}; go on with: python train.py resume=out"
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "interrupted"
    path = newest_valid(tmp_path / "out" / "checkpoints")
    assert path is not None
    assert read(path)["global_step"] >= 3
    assert spawn(tmp_path, "train", "resume=out", "trainer.max_steps=3").code == 0


@pytest.mark.long
def test_a_signal_in_the_last_grid_keeps_no_run_from_its_end(tmp_path: Path) -> None:
    """The grid takes minutes; the resumed run, with nothing left to train, draws it."""
    write_gifs(tmp_path / "gifs")
    out = tmp_path / "out"
    words = ["logger=csv", "run_dir=out", "noise.num_steps=1000", "sampler.num_evaluations=999"]
    process = start(tmp_path, "train", *TINY, *words, "callbacks.samples.num_samples=64")
    try:
        wait_for((out / "checkpoints" / "step_00000004.ckpt").exists)
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 143, errors
    assert not (out / "samples" / "final.gif").exists()
    words = ["sampler.num_evaluations=4", "callbacks.samples.num_samples=2"]
    result = spawn(tmp_path, "train", "resume=out", *words)
    assert result.code == 0, result.err
    assert "done: step 4\n" in result.out
    assert len(decode((out / "samples" / "final.gif").read_bytes()).frames) == 4
    assert (out / "samples" / "reverse.gif").exists()
    assert json.loads((out / "status.json").read_text())["status"] == "finished"
    assert read(out / "checkpoints" / "last.ckpt")["global_step"] == 4


@pytest.mark.long
def test_a_signal_before_the_first_step_is_told_too(tmp_path: Path) -> None:
    """While GIFs are decoded, of which there are many."""
    write_gifs(tmp_path / "gifs", 13, size=64, num_frames=200)
    for number in range(250):
        data = (tmp_path / "gifs" / f"{number % 13:02d}.gif").read_bytes()
        comment = b"\x21\xfe\x04" + f"{number:04d}".encode() + b"\x00"
        (tmp_path / "gifs" / f"{number + 100}.gif").write_bytes(data[:-1] + comment + b"\x3b")
    process = start(tmp_path, "train", *TINY, "logger=csv", "run_dir=out", cold=True)
    try:
        wait_for((tmp_path / "out" / "status.json").exists, every=0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 143, errors
    assert "interrupted by SIGTERM; go on with: python train.py resume=out" in errors
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "interrupted"


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(call: Call, trained: Path) -> None:
    for name in ("last.ckpt", "step_00000004.ckpt"):
        with (trained / "checkpoints" / name).open("r+b") as file:
            file.seek(1000)
            file.write(b"rot")
    sampled = call("sample", "checkpoint=last", "num_samples=1")
    assert sampled.code == 0, sampled.err
    assert "(step 2, ema weights)" in sampled.out
    result = call("train", "resume=last")
    assert result.code == 0, result.err
    assert "step_00000004.ckpt is damaged" in result.out
    assert "step_00000002.ckpt, step 2" in result.out
    assert read(trained / "checkpoints" / "last.ckpt")["global_step"] == 4


@pytest.mark.long
def test_a_run_without_finite_losses_ends_and_keeps_what_was_good(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    assert spawn(tmp_path, "train", *TINY, "logger=csv", "run_dir=out").code == 0
    before = read(tmp_path / "out" / "checkpoints" / "last.ckpt")
    words = ["resume=out", "trainer.max_steps=100", "optimizer.lr=1e30"]
    result = spawn(tmp_path, "train", *words, "trainer.gradient_clip_val=null")
    assert result.code == 1
    assert "Traceback" not in result.err
    last = result.err.strip().splitlines()[-1]
    assert "not finite in 10 steps in a row" in last
    assert len((tmp_path / "out" / "skipped_steps.jsonl").read_text().splitlines()) == 10
    path = newest_valid(tmp_path / "out" / "checkpoints")
    assert path is not None
    after = read(path)
    assert after["global_step"] >= before["global_step"]
    assert all(tensor.isfinite().all() for tensor in after["state_dict"].values())


@pytest.mark.long
def test_a_slurm_job_saves_is_requeued_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a scontrol that writes down what it was asked for."""
    write_gifs(tmp_path / "gifs")
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    words = [*TINY, "logger=csv", "trainer.max_steps=250", "callbacks.samples.first_step=3"]
    words += ["trainer.val_check_interval=100000"]
    process = start(tmp_path, "train", *words)
    try:
        wait_for(lambda: list(tmp_path.rglob("step_000003.gif")))
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGUSR1, errors
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    (run,) = (tmp_path / "outputs").glob("*_*")
    other = spawn(tmp_path, "train", *TINY, "logger=csv", "run_dir=other")
    assert other.code == 0, other.err
    assert "resuming from" not in other.out
    result = spawn(tmp_path, "train", *words)
    assert result.code == 0, result.err
    assert "resuming from" in result.out
    assert list((tmp_path / "outputs").glob("*_*")) == [run]
    steps, _ = read_metrics(run / "metrics.csv")["train/loss"]
    assert steps == list(range(250))
    assert not list((tmp_path / "outputs" / ".slurm").iterdir())
