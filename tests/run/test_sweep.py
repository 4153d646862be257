"""python train.py -m: every job a process of its own, nothing lost, nothing done twice."""

import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.plots.sweep_page import Row, as_html, as_markdown
from ddpm_lightning.run.errors import UserError
from ddpm_lightning.run.executors import Local, Process, visible_devices
from ddpm_lightning.run.expand import expanded
from ddpm_lightning.run.sweep import Planned, report_event
from ddpm_lightning.run.threads import num_cores
from tests.commands import (
    TINY,
    Call,
    alive,
    assert_user_error,
    spawn,
    start,
    wait_for,
    write_gifs,
)

QUICK = [*TINY, "logger=csv", "trainer.max_steps=2"]
LOADER: Any = None  # which only glob needs


def words(*given: str, num_random: int | None = None, seed: int = 0) -> list[list[str]]:
    return expanded(list(given), LOADER, num_random, seed)


def test_a_grid_has_every_combination_in_order() -> None:
    assert words("a=1,2", "b=x", "c=range(0,2)") == [
        ["a=1", "b=x", "c=0"],
        ["a=1", "b=x", "c=1"],
        ["a=2", "b=x", "c=0"],
        ["a=2", "b=x", "c=1"],
    ]
    assert words("data.splits=[a,b]", "+x='1,2'", "~y") == [["data.splits=[a,b]", "+x='1,2'", "~y"]]


def test_random_jobs_lie_in_their_intervals_and_depend_on_the_seed() -> None:
    given = ("a=tag(log,interval(1e-5,1e-1))", "b=int(interval(2,5))", "c=u,v", "d=1")
    jobs = words(*given, num_random=200)
    assert jobs == words(*given, num_random=200)
    assert jobs != words(*given, num_random=200, seed=1)
    rates = sorted(math.log10(float(job[0].removeprefix("a="))) for job in jobs)
    assert -5 <= rates[0] < -4.5 < -3.5 < rates[100] < -2.5 < -1.5 < rates[-1] <= -1
    assert {job[1] for job in jobs} == {"b=2", "b=3", "b=4", "b=5"}
    assert {tuple(job[2:]) for job in jobs} == {("c=u", "d=1"), ("c=v", "d=1")}


def test_of_a_grid_no_job_is_drawn_twice() -> None:
    grid = ("a=range(0,4)", "b=x,y,z", "c=1")
    jobs = words(*grid, num_random=8)
    assert len({tuple(job) for job in jobs}) == 8
    assert all(job in words(*grid) for job in jobs)
    assert words(*grid, num_random=100) == words(*grid)


def test_endless_sweeps_are_refused() -> None:
    with pytest.raises(UserError, match=r"interval\(0,1\) has no end.*num_random=20"):
        words("a=interval(0,1)")
    with pytest.raises(UserError, match="1,000,000 jobs"):
        words("a=range(0,1000)", "b=range(0,1000)")
    with pytest.raises(UserError, match="positive ends, got 0"):
        words("a=tag(log,interval(0,1))", num_random=3)


def rarely(*values: Any) -> Any:
    """A mistake like another one, in a sweep as in a run: left to make test-long."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["-m", "noise=linear,cosin"], ["cosin", "did you mean noise=cosine?"]),
        (["-m", "sweep.max_parallel=0"], ["sweep.max_parallel=0", "greater than 0"]),
        rarely(["-m", "sweep.executor=cloud"], ["sweep.executor='cloud'", "'processes'"]),
        (["-m", "optimizer.lr=interval(0,1)"], ["sweep.num_random"]),
        (["-m", "seed=0,1", "hydra/launcher=joblib"], ["see sweep.executor"]),
        (["sweep.num_random=3"], ["sweep.num_random=3 is about sweeps; add -m"]),
        rarely(["-m", "seed=0,[]"], ["job 1 (seed=[]): seed=[] is not allowed"]),
        (["-m", "noise.num_steps=20,0"], ["job 1 (noise.num_steps=0): noise: num_steps must be"]),
        rarely(["-m", "data.fps=10,0.001"], ["job 1 (data.fps=0.001): data: fps must be at least"]),
        rarely(["-m", "trainer.precision=32,8"], ["job 1 (trainer.precision=8)", "'bf16-mixed'"]),
        rarely(
            ["-m", "optimizer.lr=1e-3,inf"], ["job 1 (optimizer.lr=inf)", "give a finite number"]
        ),
        (["-m", "seed=0", "sweep.metric=val/nope"], ["sweep.metric=val/nope", "val/error"]),
        (["-m", "seed=range(0,0)"], ["seed=range(0,0) has no values"]),
        (["-m", "noise=glob(nope*)"], ["this sweep has 0 jobs"]),
    ],
)
def test_mistakes_are_found_before_the_first_job(
    given: list[str], expected: list[str], call: Call, tmp_path: Path
) -> None:
    assert_user_error(call("train", *given), *expected)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "event", ["killed by signal 9", "ended with exit code 1", "cancelled", "out_of_memory"]
)
def test_a_job_that_has_ended_before_it_began_has_failed_of_that(
    event: str, tmp_path: Path
) -> None:
    status = tmp_path / "status.json"
    status.write_text('{"status": "waiting", "seconds": 0, "error": null}')
    job = Planned(3, tmp_path, ["seed=3"], [])
    for in_order in ("submitted as 4711", "starts"):
        report_event(job, in_order)
        assert json.loads(status.read_text())["status"] == "waiting"
    report_event(job, event)
    told = json.loads(status.read_text())
    assert (told["status"], told["error"]) == ("failed", f"{event} before it began")
    report_event(job, "killed by signal 15")  # the first cause stays
    assert json.loads(status.read_text()) == told


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = (folder / "outputs" / "sweeps").glob("*/sweep.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def jobs_of(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "outputs").rglob("composed.yaml"))


@pytest.mark.slow
def test_a_job_that_fails_is_told_and_the_same_command_does_the_rest(tmp_path: Path) -> None:
    """One of two jobs finds no GIF at first, and is all that runs the second time."""
    write_gifs(tmp_path / "gifs")
    (tmp_path / "none").mkdir()
    sweep = ["-m", "data.path=gifs,none", *QUICK[2:], "data=gif_folder"]
    first = spawn(tmp_path, "train", *sweep, "sweep.max_parallel=2", cold=True)
    assert first.code == 1, first
    assert "1 of 2 jobs failed: 1" in first.err.splitlines()[-1]
    rows = rows_of(tmp_path)
    assert [row["status"] for row in rows] == ["finished", "failed"]
    assert rows[0]["overrides"] == "data.path=gifs"
    assert "none" in rows[1]["error"]
    assert float(rows[0]["best val/error"]) > 0
    jobs = jobs_of(tmp_path)
    configs = [yaml.safe_load((job / "config.yaml").read_text()) for job in jobs]
    assert len({config["run_id"] for config in configs}) == 2
    assert {config["run_group"] for config in configs} == {jobs[0].parent.name}
    planned = json.loads((jobs[0] / "starts" / "00.json").read_text())
    assert "python train.py data.path=gifs" in planned["command"]
    page = (jobs[0].parent / "sweep.html").read_text()
    assert page.count("data:image/gif;base64,") == 1
    assert page.count("data:image/png;base64,") == 0  # of other data, losses are not comparable

    write_gifs(tmp_path / "none")
    before = {job: (job / "status.json").stat().st_mtime_ns for job in jobs}
    second = spawn(tmp_path, "train", *sweep, cold=True)
    assert second.code == 0, second
    assert "2 jobs, 1 finished before" in second.out
    again = [job for job in jobs if (job / "status.json").stat().st_mtime_ns != before[job]]
    assert again == [jobs[1]]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_killed_goes_on_where_it_was(number: int, tmp_path: Path) -> None:
    """SIGTERM reaches the job, which saves; so does it when its sweep is gone."""
    write_gifs(tmp_path / "gifs")
    long = ["trainer.max_steps=60", "callbacks.checkpoints.every_n_steps=5"]
    sweep = ["-m", "seed=0,1", *TINY, "logger=csv", *long, "trainer.val_check_interval=100"]
    process = start(tmp_path, "train", *sweep, cold=True)
    wait_for(lambda: any(tmp_path.rglob("checkpoints/last.ckpt")))
    if number == signal.SIGKILL:
        process.kill()
    else:
        process.terminate()
    out, err = process.communicate(timeout=600)
    assert process.returncode == (143 if number == signal.SIGTERM else -9), out + err
    first, second = jobs_of(tmp_path)
    wait_for(lambda: "interrupted" in (first / "status.json").read_text())
    assert json.loads((second / "status.json").read_text())["status"] == "waiting"
    ended = spawn(tmp_path, "train", *sweep, cold=True)
    assert ended.code == 0, ended
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished", "finished"]
    assert "resuming from" in (first / "train.log").read_text()


@pytest.mark.long
def test_a_changed_configuration_is_not_mixed_into_a_sweep(call: Call, tmp_path: Path) -> None:
    sweep = ["-m", *QUICK, "seed=0"]
    assert call("train", *sweep).code == 0
    (job,) = jobs_of(tmp_path)
    stored = yaml.safe_load((job / "plan.yaml").read_text())
    stored["optimizer"]["lr"] = 0.5
    (job / "plan.yaml").write_text(yaml.safe_dump(stored))
    assert_user_error(call("train", *sweep), "begun with another optimizer")


@pytest.mark.long
def test_a_job_trains_on_two_devices(tmp_path: Path) -> None:
    """Both ranks of a job get its configuration: they find it in its directory."""
    write_gifs(tmp_path / "gifs")
    ddp = ["trainer=ddp", "trainer.devices=2", "trainer.precision=32-true"]
    result = spawn(tmp_path, "train", "-m", "noise=linear", *ddp, *QUICK, cold=True)
    assert result.code == 0, result
    (job,) = jobs_of(tmp_path)
    noise = yaml.safe_load((job / "config.yaml").read_text())["noise"]
    assert noise["_target_"].endswith(".LinearSchedule")
    (row,) = rows_of(tmp_path)
    assert row["status"] == "finished"
    assert float(row["best val/error"]) > 0
    assert read(job / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.long
def test_six_jobs_on_two_devices_are_killed_go_on_and_one_fails(tmp_path: Path) -> None:
    """kill -9 of the sweep in its third job; the fifth finds no GIF until it is given some."""
    names = [f"gifs{i}" for i in range(6)]
    for name in names:
        write_gifs(tmp_path / name, num_gifs=8 if name != "gifs4" else 0)
    ddp = ["trainer.devices=2", "trainer.max_steps=60", "callbacks.checkpoints.every_n_steps=2"]
    sweep = ["-m", *TINY, "logger=csv", *ddp, f"data.path={','.join(names)}"]
    process = start(tmp_path, "train", *sweep, cold=True)
    wait_for(lambda: any(tmp_path.rglob("002_*/checkpoints/last.ckpt")))
    process.kill()
    process.communicate(timeout=600)
    third = jobs_of(tmp_path)[2]
    wait_for(lambda: "interrupted" in (third / "status.json").read_text())
    wait_for(lambda: not alive(tmp_path))

    expected = ["finished"] * 4 + ["failed", "finished"]
    second = spawn(tmp_path, "train", *sweep, cold=True, timeout=900)
    assert second.code == 1, second
    assert "6 jobs, 2 finished before" in second.out
    assert "1 of 6 jobs failed: 4" in second.err.splitlines()[-1]
    assert [row["status"] for row in rows_of(tmp_path)] == expected
    assert "resuming from" in (third / "train.log").read_text()
    configs = [yaml.safe_load((job / "config.yaml").read_text()) for job in jobs_of(tmp_path)]
    assert [config["data"]["path"] for config in configs] == names

    write_gifs(tmp_path / "gifs4")
    third_command = spawn(tmp_path, "train", *sweep, cold=True)
    assert third_command.code == 0, third_command
    assert "6 jobs, 5 finished before" in third_command.out
    assert not alive(tmp_path)


@pytest.mark.long
def test_ranks_with_different_configurations_stop(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = [*TINY, "logger=csv", "run_dir=out", "trainer.devices=2", "+trainer.strategy=ddp"]
    result = spawn(tmp_path, "tests/run/disagreeing", *words, cold=True)
    assert result.code != 0
    assert "the ranks have different configurations" in result.err
    assert not list((tmp_path / "out").glob("checkpoints/*"))


@pytest.mark.long
def test_slurm_would_run_the_same_processes(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = ["-m", "seed=0,1", *QUICK, "sweep.executor=submitit_local"]
    result = spawn(tmp_path, "train", *words, "+sweep.slurm.timeout_min=5", cold=True)
    assert result.code == 0, result
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished", "finished"]


@pytest.mark.long
def test_a_slurm_job_whose_time_is_up_lets_its_run_save(tmp_path: Path) -> None:
    """SIGTERM, then the same command again."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved') or 143))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    console = tmp_path / "console.log"
    process = Process([sys.executable, "-c", code], console)
    process._child = subprocess.Popen(process.words, stdout=console.open("ab"))
    wait_for(lambda: "ready" in console.read_text())
    again = process.checkpoint()
    assert "saved" in console.read_text()
    assert again.function.words == process.words


@pytest.mark.slow
def test_local_jobs_run_side_by_side_on_devices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = max(1, num_cores() // 2)
    assert visible_devices() == ["3", "5"]
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    code = f"import os, time; print(*map(os.environ.get, {names})); time.sleep(1)"
    told: list[tuple[int, str]] = []
    commands = [([sys.executable, "-c", code], tmp_path / f"{i}.log") for i in range(4)]
    commands[2] = ([sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "2.log")
    Local(2).run(commands, lambda i, event: told.append((i, event)))
    assert [(tmp_path / f"{i}.log").read_text() for i in (0, 1)] == [
        f"3 {threads}\n",
        f"5 {threads}\n",
    ]
    assert told.index((1, "starts")) < told.index((0, "done"))
    assert (2, "ended with exit code 7") in told
    assert (3, "done") in told


def row(number: int, **changes: Any) -> Row:
    values = {"words": "a=1|2", "status": "finished", "error": "", "value": 0.5, "seconds": 60.0}
    values |= {"standard_error": None, "is_best": False, "path": f"{number:03d}"}
    return Row(number, **{**values, **changes})


def test_the_table_marks_the_best_and_escapes_what_it_shows(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, value=0.25, standard_error=0.01, is_best=True),
        row(2, value=None, status="failed", error="<b>no</b>"),
    ]
    table = as_markdown(rows, "val/error", "a note")
    assert "**0.25 ± 0.01**" in table
    assert table.endswith("\na note\n")
    assert table.count("a=1\\|2") == 3
    page = as_html(rows, "val/error", "a note", ["val/error"], tmp_path, "x=<i>")
    assert "<b>no</b>" not in page
    assert "x=<i>" not in page
    assert page.count("class='best'") == 1
