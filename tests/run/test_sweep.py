"""Sweeps: a process and a run for each job, all told in the end, and gone on with after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import ROOT, TINY, Call, assert_user_error, spawn, start, wait_for, write_gifs


def statuses(sweep: Path) -> dict[str, str]:
    files = {path: path / "status.json" for path in sweep.glob("*_*") if path.is_dir()}
    return {
        path.name.split("_")[0]: json.loads(file.read_text())["status"]
        for path, file in files.items()
        if file.exists()
    }


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_tells_of_every_job(tmp_path: Path) -> None:
    """Three jobs of which one cannot find a clip; W&B offline."""
    write_gifs(tmp_path / "gifs")
    words = ["-m", *TINY, "logger=wandb", "trainer.max_steps=200", "data.max_seconds=null,0.01,9"]
    process = start(tmp_path, "train", *words, "trainer.val_check_interval=50")
    sweeps = tmp_path / "outputs" / "sweeps"
    try:
        wait_for(lambda: list(sweeps.glob("*/2_*/checkpoints/step_*")), seconds=240)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        process.kill()
    (sweep,) = (path for path in sweeps.iterdir() if path.is_dir())
    wait_for(lambda: statuses(sweep).get("2") != "running", seconds=60)  # told to end, it saves
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("0_*/checkpoints/*")}
    assert statuses(sweep)["0"] == "finished"
    assert statuses(sweep)["2"] == "interrupted"

    result = spawn(tmp_path, "train", *words, "trainer.val_check_interval=50")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.strip().splitlines()[-1].startswith("error: 1 of 3 jobs failed")
    assert "job 0 (data.max_seconds=null): finished before" in result.out
    assert [path for path in sweeps.iterdir() if path.is_dir()] == [sweep]
    assert statuses(sweep) == {"0": "finished", "1": "failed", "2": "finished"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "resuming from" in next(sweep.glob("2_*/console.log")).read_text()

    with (sweep / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["overrides"] for row in rows] == [
        f"data.max_seconds={n}" for n in ("null", 0.01, 9)
    ]
    assert [row["status"].split(":")[0] for row in rows] == ["finished", "failed", "finished"]
    assert "too_long" in rows[1]["status"]
    assert float(rows[0]["best val/loss"]) == float(rows[2]["best val/loss"]) > 0
    markdown = (sweep / "sweep.md").read_text()
    page = (sweep / "sweep.html").read_text()
    for row in rows:
        assert all(cell in markdown for cell in row.values())
        assert row["run"] in page
    assert page.count("curves.png") == page.count("samples/final.gif") == 2

    configs = [yaml.safe_load(path.read_text()) for path in sweep.glob("*/config.yaml")]
    assert {config["logger"]["group"] for config in configs} == {sweep.name}
    assert len({config["logger"]["id"] for config in configs}) == 3
    offline = [path.name for path in sweep.glob("*/wandb/offline-run-*")]
    assert len({name.rsplit("-", 1)[1] for name in offline}) == 2  # the third never began


@pytest.mark.slow
def test_jobs_on_several_devices_train_what_they_were_asked_to(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    ddp = ["trainer.devices=2", "+trainer.strategy=ddp", "sweep.jobs_at_once=2"]
    words = ["-m", *TINY, "logger=csv", *ddp, "model=standard,median"]
    result = spawn(tmp_path, "train", *words)
    assert result.code == 0, result.out + result.err
    runs = sorted((tmp_path / "outputs" / "sweeps").glob("*/*_*/config.yaml"))
    models = [yaml.safe_load(path.read_text())["model"]["_target_"] for path in runs]
    assert [name.rsplit(".", 1)[1] for name in models] == ["StandardDiffusion", "MedianDiffusion"]


@pytest.mark.slow
def test_ranks_with_different_configurations_stop(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = [*TINY, "logger=csv", "run_dir=out", "trainer.devices=2", "+trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "run" / "disagreeing.py"), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "the ranks have different configurations" in done.stderr
    assert not list((tmp_path / "out").glob("checkpoints/*"))


def test_random_jobs_are_drawn_by_the_seed(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn, without running it."""
    monkeypatch.setattr("ddpm_lightning.run.sweep.run_all", lambda rows, jobs_at_once: None)
    grid = ["noise=linear,cosine,hybrid", "optimizer.lr=0.1,0.01,0.001"]
    drawn = []
    for seed in (0, 0, 1):
        words = ["-m", *TINY, "logger=csv", *grid, "sweep.num_random=4", f"seed={seed}"]
        result = call("train", *words)
        assert result.code == 1  # they have not been run
        drawn.append([line.split(" | ")[1] for line in result.out.splitlines() if "| wai" in line])
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(overrides)) == 4 for overrides in drawn)


@pytest.mark.parametrize("word", ["sweep.jobs_at_once=0", "sweep.num_random=two"])
def test_no_jobs_are_refused(word: str, call: Call) -> None:
    result = call("train", "-m", *TINY, "model=standard,median", word)
    assert_user_error(result, word[6:].split("=", maxsplit=1)[0], "is not allowed")
