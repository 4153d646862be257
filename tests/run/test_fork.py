"""A run that is resumed from an older checkpoint is another run; the old one stays as it was."""

import hashlib
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from ddpm_lightning.files.checkpoints import by_step, link, newest_valid, read, write
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.config.errors import Stopped, UserError
from ddpm_lightning.run.directory.fork import discard_later
from ddpm_lightning.run.directory.slurm import requeued
from ddpm_lightning.run.directory.start import check_step
from tests.commands import TINY, Call, assert_user_error, spawn, write_gifs
from tests.training.test_resume import differences, kept

pytestmark = pytest.mark.slow  # as a whole, not one by one

POWER = "{_target_: ddpm_lightning.averages.PowerDecay, relative_length: 0.1}"


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in by_step(folder)]


def content(run: Path) -> dict[str, str]:
    """The digests of all files of a run."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_gifs(folder / "gifs")
    words = ["trainer.max_steps=6", "~callbacks.samples"]
    words += ["callbacks.checkpoints.keep=10", "callbacks.checkpoints.every_n_steps=1"]
    words += ["callbacks.ema.snapshot_every_n_steps=1", f"+callbacks.ema.averages.power={POWER}"]
    result = spawn(folder, "train", *TINY, "logger=csv", "run_dir=out", *words)
    assert result.code == 0, result.err
    return folder / "out"


@pytest.fixture
def run(call: Call, run_once: Path, tmp_path: Path) -> Path:
    """After six steps, with a checkpoint and a snapshot of each."""
    subprocess.run(["cp", "-a", run_once, tmp_path / "out"], check=True)
    return tmp_path / "out"


def test_an_older_checkpoint_is_the_beginning_of_another_run(call: Call, run: Path) -> None:
    """It ends as the old one, to the bit, which is not touched; the newest goes on in place."""
    before = content(run)
    third = run / "checkpoints" / "step_00000003.ckpt"
    result = call("train", f"resume={third}", "run_dir=fork")
    assert result.code == 0, result.err
    fork = run.with_name("fork")
    assert f"forked from {third}, step 3" in result.out
    assert content(run) == before
    old, new = (yaml.safe_load((path / "config.yaml").read_text()) for path in (run, fork))
    assert new["parent"] == str(third)
    assert new["run_id"] != old["run_id"]
    ends = [kept(read(path / "checkpoints" / "last.ckpt")) for path in (run, fork)]
    assert differences(ends[0], ends[1]) == []
    assert steps(fork / "checkpoints") == [6, 5, 4, 3]
    assert steps(fork / "averages") == [6, 5, 4, 3, 2, 1]
    curves = [read_metrics(path / "metrics.csv")["train/loss"] for path in (run, fork)]
    assert curves[0] == curves[1]
    assert (fork / "clips.json").read_bytes() == (run / "clips.json").read_bytes()
    inodes = [{p.stat().st_ino for p in path.rglob("*.ckpt")} for path in (run, fork)]
    assert not inodes[0] & inodes[1]
    sampled = call("sample", f"checkpoint={fork}", "weights=0.08", "num_samples=1")
    assert "(step 6, 0.08 weights)" in sampled.out, sampled.err

    last = fork / "checkpoints" / "step_00000006.ckpt"
    result = call("train", f"resume={last}", "trainer.max_steps=7")
    assert result.code == 0, result.err
    assert steps(fork / "checkpoints")[0] == 7
    assert not (run.parent / "outputs").exists()


@pytest.mark.long
def test_a_fork_takes_changed_values_and_a_name_of_its_own(call: Call, run: Path) -> None:
    second = run / "checkpoints" / "step_00000002.ckpt"
    best = second.with_name("best.ckpt")
    link(second, best)
    words = ["optimizer.lr=1e-2", "trainer.max_steps=3", "run_name=warmer"]
    result = call("train", f"resume={best}", *words)
    assert result.code == 0, result.err
    (fork,) = (run.parent / "outputs").iterdir()
    assert fork.name.endswith("_warmer")
    assert yaml.safe_load((fork / "config.yaml").read_text())["optimizer"]["lr"] == 1e-2
    assert read(fork / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert_user_error(call("train", f"resume={second}", f"run_dir={fork}"), "already exists")
    assert_user_error(call("train", f"resume={second}", "network.base_width=32"), "base_width=16")
    assert len(list((run.parent / "outputs").iterdir())) == 1


@pytest.mark.long
def test_a_run_whose_newest_is_damaged_goes_on_in_its_place(call: Call, run: Path) -> None:
    """Whatever killed processes left half written is removed."""
    folder = run / "checkpoints"
    link(folder / "step_00000006.ckpt", folder / "best.ckpt")
    with (folder / "step_00000006.ckpt").open("r+b") as file:  # last.ckpt is the same file
        file.write(b"rot")
    (run / "averages" / ".step_00000009.ckpt.123-0123abcd").touch()
    words = ["trainer.max_steps=8", "callbacks.checkpoints.keep=2"]
    result = call("train", f"resume={run}", *words, "callbacks.checkpoints.every_n_steps=4")
    assert result.code == 0, result.err
    assert f"resuming from {folder}/step_00000005.ckpt, step 5" in result.out
    assert steps(folder) == [8, 6]  # of the validation at 6
    assert {p.stem for p in folder.glob("*.damaged")} == {"best", "last", "step_00000006"}
    assert newest_valid(folder) == folder / "last.ckpt"
    assert steps(run / "averages") == [8, 7, 6, 5, 4, 3, 2, 1]
    assert len(read_metrics(run / "metrics.csv")["train/loss"][0]) == 8
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]
    assert not (run.parent / "outputs").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "lost", ["best.ckpt", pytest.param("step_00000006.ckpt", marks=pytest.mark.long)]
)
def test_a_best_whose_save_was_cut_short_is_the_best(lost: str, call: Call, run: Path) -> None:
    """The sixth step's; a process died before it had the name."""
    folder = run / "checkpoints"
    assert read(folder / "best.ckpt")["global_step"] == 6
    link(folder / "step_00000004.ckpt", folder / "best.ckpt")
    (folder / lost).unlink()
    result = call("train", "resume=out", "trainer.max_steps=7")
    assert result.code == 0, result.err
    assert read(folder / "best.ckpt")["global_step"] == 6


@pytest.mark.long
def test_the_best_is_taken_where_no_other_is_whole(call: Call, run: Path) -> None:
    second = run / "checkpoints" / "step_00000002.ckpt"
    link(second, second.with_name("best.ckpt"))
    second.unlink()
    for path in second.parent.glob("*.ckpt"):
        if path.name != "best.ckpt":
            path.write_bytes(b"")
    sampled = call("sample", f"checkpoint={run}", "num_samples=1")
    assert "(step 2, ema weights)" in sampled.out, sampled.err


@pytest.mark.long
def test_a_requeued_job_goes_on_with_its_own_fork(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM starts it with the same words; also before the fork has saved anything of its own."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    words = ["resume=out/checkpoints/step_00000002.ckpt", "run_dir=fork", "trainer.max_steps=3"]
    assert call("train", *words).code == 0
    fork = run.with_name("fork")
    for path in (fork / "checkpoints").glob("*"):
        if "00000002" not in path.name:
            path.unlink()
    with pytest.raises(Stopped), requeued(fork, Path("outputs"), words):
        raise Stopped(signal.SIGTERM)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    result = call("train", *words)
    assert result.code == 0, result.err
    assert f"resuming from {fork}/checkpoints/step_00000002.ckpt, step 2" in result.out
    assert read(fork / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_a_damaged_snapshot_is_told_in_one_line(call: Call, run: Path) -> None:
    with (run / "averages" / "step_00000002.ckpt").open("r+b") as file:
        file.write(b"rot")
    result = call("sample", f"checkpoint={run}", "weights=0.08")
    assert_user_error(result, "averages/step_00000002.ckpt is damaged")


def test_files_of_other_names_stay_and_a_replaced_checkpoint_is_refused(tmp_path: Path) -> None:
    """Another process may have trained between the choice of a checkpoint and the lock."""
    (tmp_path / "checkpoints").mkdir()
    for name in ("step_00000005", "step_mine"):
        write({"global_step": 5}, tmp_path / "checkpoints" / f"{name}.ckpt")
    newest = tmp_path / "checkpoints" / "step_00000005.ckpt"
    with pytest.raises(UserError, match="still being trained, from step 4 to 5; start again"):
        check_step(newest, 4)
    discard_later(tmp_path, 5)
    assert newest_valid(newest.parent) == newest
    assert newest.with_name("step_mine.ckpt").exists()
