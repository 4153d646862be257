"""python train.py -m: every job a process of its own, nothing lost, nothing done twice."""

import csv
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.plots.sweep_page import Row, as_html, as_markdown
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.torch_environment import num_cores
from ddpm_lightning.run.sweeps.jobs import Frozen, report, run_frozen
from ddpm_lightning.run.sweeps.launcher import jobs_of
from tests.commands import (
    ROOT,
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


def words(*given: str, num_random: int | None = None, seed: int = 0) -> list[list[str]]:
    return jobs_of(OverridesParser.create().parse_overrides(list(given)), num_random, seed)


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
        (["-m", "sweep.executor=slurm"], ["sweep.executor is now hydra/launcher: joblib,"]),
        rarely(
            ["-m", "+sweep.slurm.timeout_min=5"],
            ["is now hydra.launcher", "launcher=submitit_slurm"],
        ),
        (["-m", "optimizer.lr=interval(0,1)"], ["sweep.num_random"]),
        (["-m", "seed=0,1", "hydra/launcher=cloud"], ["hydra/launcher/cloud", "choose basic,"]),
        rarely(["-m", "seed=0,1", "resume=last"], ["resume=last: -m begins new runs"]),
        rarely(["-m", "seed=0,1", "--cfg", "job"], ["-m goes with no other flag"]),
        (["sweep.num_random=3"], ["sweep.num_random=3 is about sweeps; add -m"]),
        rarely(["-m", "seed=0,[]"], ["job 1 (seed=[]): seed=[] is not allowed"]),
        (["-m", "noise.num_steps=20,0"], ["job 1 (noise.num_steps=0): noise: num_steps must be"]),
        rarely(["-m", "data.fps=10,0.001"], ["job 1 (data.fps=0.001): data: fps must be at least"]),
        rarely(["-m", "trainer.precision=32,8"], ["job 1 (trainer.precision=8)", "'bf16-mixed'"]),
        rarely(["-m", "optimizer.lr=1e-3,inf"], ["job 1 (optimizer.lr=inf)", "be a finite number"]),
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


@pytest.mark.parametrize("event", ["killed by signal 9", "ended with exit code 1"])
def test_a_job_that_has_ended_before_it_began_has_failed_of_that(
    event: str, tmp_path: Path
) -> None:
    status = tmp_path / "status.json"
    status.write_text('{"status": "waiting", "seconds": 0, "error": null}')
    job = Frozen(tmp_path, "[3] seed=3", ["seed=3"])
    report(job, "starts")
    assert json.loads(status.read_text())["status"] == "waiting"
    report(job, event)
    content = json.loads(status.read_text())
    assert (content["status"], content["error"]) == ("failed", f"{event} before it began")
    report(job, "killed by signal 15")  # the first cause stays
    assert json.loads(status.read_text()) == content


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = (folder / "outputs" / "sweeps").glob("*/sweep.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def jobs_of_sweep(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "outputs").rglob("composed.yaml"))


@pytest.mark.slow
def test_a_sweep_has_a_row_for_each_job(tmp_path: Path) -> None:
    """Here of one job, which finishes; it, at least, is a process of its own."""
    write_gifs(tmp_path / "gifs")
    ended = spawn(tmp_path, "train", "-m", "seed=3", *QUICK)
    assert ended.code == 0, ended
    (row,) = rows_of(tmp_path)
    assert (row["status"], row["overrides"]) == ("finished", "")  # no words differ
    assert float(row["best val/error"]) > 0


@pytest.mark.long
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
    jobs = jobs_of_sweep(tmp_path)
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
    first, second = jobs_of_sweep(tmp_path)
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
    (job,) = jobs_of_sweep(tmp_path)
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
    (job,) = jobs_of_sweep(tmp_path)
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
    third = jobs_of_sweep(tmp_path)[2]
    wait_for(lambda: "interrupted" in (third / "status.json").read_text())
    wait_for(lambda: not alive(tmp_path))

    expected = ["finished"] * 4 + ["failed", "finished"]
    second = spawn(tmp_path, "train", *sweep, cold=True, timeout=900)
    assert second.code == 1, second
    assert "6 jobs, 2 finished before" in second.out
    assert "1 of 6 jobs failed: 4" in second.err.splitlines()[-1]
    assert [row["status"] for row in rows_of(tmp_path)] == expected
    assert "resuming from" in (third / "train.log").read_text()
    configs = [yaml.safe_load((job / "config.yaml").read_text()) for job in jobs_of_sweep(tmp_path)]
    assert [config["data"]["path"] for config in configs] == names

    write_gifs(tmp_path / "gifs4")
    third_command = spawn(tmp_path, "train", *sweep, cold=True)
    assert third_command.code == 0, third_command
    assert "6 jobs, 5 finished before" in third_command.out
    assert not alive(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_of_hydra_run_the_same_processes(launcher: str, tmp_path: Path) -> None:
    """One of two jobs fails; what is finished is kept, whoever starts the rest."""
    write_gifs(tmp_path / "gifs")
    (tmp_path / "none").mkdir()
    sweep = ["-m", "data.path=gifs,none", *QUICK[2:], "data=gif_folder"]
    first = spawn(tmp_path, "train", *sweep, f"hydra/launcher={launcher}", cold=True)
    assert first.code == 1, first
    assert "1 of 2 jobs failed: 1" in first.err.splitlines()[-1]
    assert "Traceback" not in first.err
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished", "failed"]
    assert "none" in (jobs_of_sweep(tmp_path)[1] / "console.log").read_text()
    write_gifs(tmp_path / "none")
    second = spawn(tmp_path, "train", *sweep, cold=True)
    assert second.code == 0, second
    assert "2 jobs, 1 finished before" in second.out


@pytest.mark.long
def test_a_sweeper_that_adapts_receives_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its third job follows from the values of the first two; started again, it repeats none."""
    monkeypatch.setattr("tests.commands.environment", environment_with_plugins)
    write_gifs(tmp_path / "gifs")
    words = ["-m", *QUICK, "hydra/sweeper=descent"]
    first = spawn(tmp_path, "train", *words, cold=True)
    assert first.code == 0, first
    rows = rows_of(tmp_path)
    rates = [float(row["overrides"].removeprefix("optimizer.lr=")) for row in rows]
    is_first_better = float(rows[0]["best val/error"]) < float(rows[1]["best val/error"])
    assert rates == [1e-3, 1e-2, 1e-4 if is_first_better else 1e-1]
    again = spawn(tmp_path, "train", *words, cold=True)
    assert again.code == 0, again
    assert again.out.count("1 jobs, 1 finished before") == 3
    assert rows_of(tmp_path) == rows


def environment_with_plugins() -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "run")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


class Code(Frozen):
    """A process that is told in Python what to do, in the place of a training."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", *self.words]

    @classmethod
    def at(cls, directory: Path, code: str) -> "Code":
        directory.mkdir()
        (directory / "status.json").write_text('{"status": "waiting"}')
        return cls(directory, directory.name, [code])

    def printed(self) -> str:
        return (self.directory / "console.log").read_text()


@pytest.mark.slow
def test_what_interrupts_a_launcher_lets_the_run_save(tmp_path: Path) -> None:
    """As submitit does before the time of a SLURM job is up: it exits from a signal's handler."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved') or 143))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    job = Code.at(tmp_path / "job", code)

    def interrupt() -> None:
        wait_for(lambda: (job.directory / "console.log").exists() and "ready" in job.printed())
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(SystemExit):
            run_frozen([job], 1, is_shown=False)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert "saved" in job.printed()


@pytest.mark.slow
def test_jobs_run_side_by_side_on_devices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And are no part of what torchrun has started."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = max(1, num_cores() // 2)
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LOCAL_RANK")
    code = f"import os, time; print(*map(os.environ.get, {names})); time.sleep(1)"
    codes = [code, code, "raise SystemExit(7)", code]
    jobs = [Code.at(tmp_path / str(i), code) for i, code in enumerate(codes)]
    run_frozen(list(jobs), 2, is_shown=False)
    assert [job.printed() for job in jobs[:2]] == [f"3 {threads} None\n", f"5 {threads} None\n"]
    events = capsys.readouterr().out.splitlines()
    assert events.index("1: starts") < events.index("0: done")
    assert "2: ended with exit code 7" in events
    assert "3: done" in events


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
