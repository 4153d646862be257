"""A run that goes on from an earlier checkpoint, and what it had trained beyond it."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_lightning.files.checkpoints import by_step, link, newest_valid, read, remove, write
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run import rewind
from ddpm_lightning.run.errors import Stopped, UserError
from ddpm_lightning.run.rewind import split_off
from ddpm_lightning.run.slurm import requeued
from tests.commands import TINY, Call, assert_user_error, spawn, write_gifs

pytestmark = pytest.mark.slow  # as a whole, not one by one

POWER = "{_target_: ddpm_lightning.averages.PowerDecay, relative_length: 0.1}"


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in by_step(folder)]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [
        "callbacks.samples.every_n_steps=2",
        "trainer.max_steps=6",
        "callbacks.checkpoints.keep=10",
        "callbacks.checkpoints.every_n_steps=1",
        "callbacks.ema.snapshot_every_n_steps=1",
        f"+callbacks.ema.averages.power={POWER}",
    ]
    return trained_in(tmp_path_factory.mktemp("run"), *words)


def trained_in(folder: Path, *words: str) -> Path:
    write_gifs(folder / "gifs")
    result = spawn(folder, "train", *TINY, "logger=csv", "run_dir=out", *words)
    assert result.code == 0, result.err
    return folder / "out"


def copied(run: Path, folder: Path) -> Path:
    """With files that are one under two names, as last.ckpt, staying one."""
    subprocess.run(["cp", "-a", run, folder / "out"], check=True)
    return folder / "out"


@pytest.fixture
def run(call: Call, run_once: Path, tmp_path: Path) -> Path:
    """After six steps, with a checkpoint and a snapshot of each."""
    return copied(run_once, tmp_path)


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
    assert steps(run / "checkpoints") == [2, 1]
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


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["trainer.max_steps=10", "callbacks.checkpoints.every_n_steps=2"]
    return trained_in(tmp_path_factory.mktemp("ten"), *words)


@pytest.mark.parametrize("lost", ["best.ckpt", "step_00000010.ckpt"])
def test_a_best_whose_save_was_cut_short_is_the_best(
    lost: str, call: Call, ten_steps: Path, tmp_path: Path
) -> None:
    """The tenth step's, as other tests show; a process died before it had the name."""
    folder = copied(ten_steps, tmp_path) / "checkpoints"
    assert read(folder / "best.ckpt")["global_step"] == 10
    link(folder / "step_00000008.ckpt", folder / "best.ckpt")
    remove(folder / lost)
    result = call("train", "resume=out", "trainer.max_steps=11")
    assert result.code == 0, result.err
    assert read(folder / "best.ckpt")["global_step"] == 10


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Those of a run after six steps, of which the fifth is its best, and what a user put there."""
    files = tmp_path / "files"
    for folder in ("checkpoints", "averages"):
        (files / folder).mkdir(parents=True)
        for step in range(1, 7):
            write({"global_step": step}, files / folder / f"step_{step:08d}.ckpt")
    newest = files / "checkpoints" / "step_00000006.ckpt"
    link(newest, newest.with_name("last.ckpt"))
    link(newest.with_name("step_00000005.ckpt"), newest.with_name("best.ckpt"))
    (files / "samples" / "2026-01-01_00-00-00").mkdir(parents=True)
    for name in ("step_000002", "step_000006", "final", "compare_heun"):
        (files / "samples" / f"{name}.gif").touch()
    write({}, newest.with_name("step_mine.ckpt"))
    (files / "composed.yaml").write_text("config: {}")
    (files / "metrics.csv").write_text("step,train/loss")
    return files


def content(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in (".ckpt", ".gif")}


def test_wherever_it_dies_the_next_start_sets_aside_the_rest(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = "checkpoints/step_00000003.ckpt"
    whole = Path(shutil.copytree(files, tmp_path / "whole"))
    assert split_off(whole, whole / third, 3) == whole / "abandoned_1"
    expected = content(whole)
    assert {p for p in expected if "mine" in p or "best" in p or "compare" in p} == {
        "checkpoints/step_mine.ckpt",
        "abandoned_1/checkpoints/best.ckpt",
        "abandoned_1/samples/compare_heun.gif",
    }
    assert (whole / "samples" / "2026-01-01_00-00-00").is_dir()

    class Died(BaseException):
        pass

    for num_calls in count(1):  # before the first one nothing is chosen
        out = Path(shutil.copytree(files, tmp_path / str(num_calls)))
        left = [None] * num_calls

        def dying(do: Callable[..., None], *arguments: Any, left: list[None] = left) -> None:
            if not left:
                raise Died
            left.pop()
            do(*arguments)

        with monkeypatch.context() as patch:
            for name in ("link", "remove"):
                patch.setattr(rewind, name, partial(dying, getattr(rewind, name)))
            try:
                split_off(out, out / third, 3)
                break
            except Died:
                pass
        chosen = newest_valid(out / "checkpoints")
        assert chosen is not None
        split_off(out, chosen, 3)
        assert content(out) == expected, num_calls
    assert num_calls > 15


def test_a_checkpoint_whose_save_was_cut_short_gets_its_number(files: Path) -> None:
    newest, last = (files / "checkpoints" / name for name in ("step_00000006.ckpt", "last.ckpt"))
    remove(newest)
    assert split_off(files, last, 6) is None
    assert newest.samefile(last)
    assert newest_valid(files / "checkpoints") == last


def test_a_checkpoint_that_another_process_has_replaced_meanwhile_is_not_gone_on_from(
    files: Path,
) -> None:
    last, before = files / "checkpoints" / "last.ckpt", content(files)
    with pytest.raises(UserError, match="still being trained, from step 5 to 6; start again"):
        split_off(files, last, 5)
    assert content(files) == before


def test_a_number_that_another_whole_checkpoint_has_stays_with_it(files: Path) -> None:
    fourth, mine = (files / "checkpoints" / f"step_{n}.ckpt" for n in ("00000004", "mine"))
    write({"global_step": 4, "of": "another branch"}, mine)
    split_off(files, mine, 4)
    assert read(fourth) == {"global_step": 4}
    assert read(files / "checkpoints" / "last.ckpt") == read(mine)


def test_the_only_copy_of_the_newest_is_kept(files: Path) -> None:
    """As where only last and best were copied, or a process died between its two names."""
    for path in by_step(files / "checkpoints"):
        remove(path)
    write({"global_step": 2}, files / "checkpoints" / "best.ckpt")
    aside = split_off(files, files / "checkpoints" / "best.ckpt", 2)
    assert aside is not None
    assert read(aside / "checkpoints" / "step_00000006.ckpt")["global_step"] == 6
    assert read(files / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_requeued_job_does_not_go_back_again(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM starts it with the same words."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
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
