"""The run directory: one run each, with all that made it, and resumed in place."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ddpm_lightning.files.checkpoints import is_whole
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.config.errors import Stopped, UserError
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.directory.resume import resumed_start
from ddpm_lightning.run.directory.start import new_start, reserved
from tests.commands import (
    TINY,
    Call,
    assert_user_error,
    newest_run,
    spawn,
    start,
    wait_for,
    write_gifs,
)
from tests.problems import composed

pytestmark = pytest.mark.slow  # as a whole, not one by one


@pytest.mark.long
def test_twenty_starts_in_one_second_get_twenty_directories(tmp_path: Path) -> None:
    processes = [start(tmp_path, "tests/run/starter", str(number)) for number in range(20)]
    try:
        wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 20)
        (tmp_path / "go").touch()
        told = [process.communicate(timeout=600)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 20
    made = {str(path) for path in (tmp_path / "outputs").iterdir()}
    assert {directory for directory, _ in told} == made
    assert len(made) == 20
    assert str(tmp_path / "outputs" / "2030-01-01_12-00-00_a-b-c") in made
    assert len({run_id for _, run_id in told}) == 20


@pytest.mark.parametrize("end", [UserError("no"), Stopped(15, "stopped"), KeyboardInterrupt()])
def test_a_run_that_ends_before_it_begins_leaves_no_directory(
    end: BaseException, tmp_path: Path
) -> None:
    """While it is built, its directory is there; a second run of this second has another."""
    keys = {"run_name": "a", "run_dir": None, "run_id": None, "outputs_dir": str(tmp_path)}
    first = new_start(Job(OmegaConf.create(keys), [], {}))
    begun: list[Path] = []

    def refuse() -> None:
        with reserved(first) as start:
            with reserved(first) as other:
                begun.append(other.directory)
            assert sorted(tmp_path.iterdir()) == sorted([start.directory, other.directory])
            raise end

    with pytest.raises(type(end)):
        refuse()
    assert list(tmp_path.iterdir()) == begun
    named = first.at(begun[0])._replace(is_named=True)
    with reserved(named) as again:  # empty, as a start that was killed leaves it
        assert again == named
        (begun[0] / "config.yaml").touch()
    with pytest.raises(UserError, match="already exists"), reserved(named):
        pass


def test_a_run_tells_where_it_came_from(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["callbacks"]["checkpoints"]["directory"] == f"{config['run_dir']}/checkpoints"
    (file,) = (trained / "starts").glob("*.json")
    told = json.loads(file.read_text())
    assert told["command"].startswith("python train.py data=gif_folder data.path=gifs")
    assert (told["seed"], told["data_seed"]) == (0, 0)
    assert told["packages"]["torch"] == torch.__version__.split("+")[0]
    if told["git"] is not None:  # where the tests run from a checkout
        assert re.fullmatch("[0-9a-f]{40}", told["git"]["revision"])
        assert told["git"]["changed"] == file.with_suffix(".patch").exists()


def test_resuming_goes_on_in_the_same_directory(trained_once: Path, resumed_once: Path) -> None:
    """Wherever that was moved to, with validations at other steps; a half-written row of its table
    is dropped.
    """
    before = read_metrics(trained_once / "metrics.csv")["train/loss"]
    steps, losses = read_metrics(resumed_once / "metrics.csv")["train/loss"]
    assert steps[:4] == before[0]
    assert losses[:4] == before[1]
    assert len(steps) == len(set(steps)) == 6
    assert list(trained_once.parent.iterdir()) == [trained_once]
    status = json.loads((resumed_once / "status.json").read_text())
    assert status["status"] == "finished"
    assert 1000 < status["seconds"] < 2000  # with those of the first start
    assert len(list((resumed_once / "starts").glob("*.json"))) == 2


def test_what_depends_on_a_changed_value_follows_it(resumed_once: Path) -> None:
    config = yaml.safe_load((resumed_once / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 6
    assert config["model"]["optimizer"]["lr"] == 0.5
    assert config["sampler"]["eta"] == config["callbacks"]["samples"]["sampler"]["eta"] == 0.5


@pytest.mark.long
def test_a_run_without_a_checkpoint_begins_again_in_its_directory(
    call: Call, trained: Path
) -> None:
    losses = read_metrics(trained / "metrics.csv")["train/loss"]
    shutil.rmtree(trained / "checkpoints")
    result = call("train", f"resume={trained}")
    assert result.code == 0, result.err
    assert read_metrics(trained / "metrics.csv")["train/loss"] == losses


@pytest.mark.long
def test_dashboards_draw_one_curve(call: Call, tmp_path: Path) -> None:
    assert call("train", *TINY).code == 0
    run = newest_run(tmp_path)
    assert call("train", "resume=last", "trainer.max_steps=6").code == 0
    scalars = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("train/loss")
    assert [event.step for event in scalars] == list(range(6))
    offline = [path.name for path in (run / "wandb").glob("offline-run-*")]
    assert len({name.rsplit("-", 1)[1] for name in offline}) == 1  # the id


@pytest.mark.long
def test_two_processes_never_train_in_one_directory(call: Call, trained: Path) -> None:
    words = [f"resume={trained}", "trainer.max_steps=100000"]
    process = start(trained.parents[1], "train", *words)
    try:
        wait_for((trained / "starts" / "02.json").exists)
        result = call("train", f"resume={trained}")
        assert_user_error(result, "is in use by process")
    finally:
        process.kill()
        process.communicate()


def test_a_word_that_fits_neither_the_defaults_nor_the_run_is_refused(
    call: Call, trained: Path
) -> None:
    for word, near in (("sead=1", "seed"), ("trainer.max_stesp=6", "trainer.max_steps")):
        assert_user_error(call("train", f"resume={trained}", word), f"did you mean {near}?")


def test_what_would_make_it_another_run_is_refused(trained: Path) -> None:
    """By what a job's words change of the run."""
    cfg = composed(*TINY, "logger=csv")
    for word, expected in {
        "model=median": ["trained with model=standard, now it is median"],
        "trainer=gpu": ["trained with trainer=auto", "single values"],
        "optimizer.lr=1e-3,1e-4": ["optimizer.lr=1e-3,1e-4", "-m"],
        "data.fps=5": ["data.fps=10"],
        "network.base_width=32": ["model.denoiser.network.base_width=16", "now it is 32"],
        "seed=1": ["model.seed=0", "now it is 1"],
    }.items():
        with pytest.raises(UserError) as caught:
            resumed_start(str(trained), Job(cfg, [word], {}))
        assert [part for part in expected if part not in str(caught.value)] == [], caught.value


def test_words_that_change_nothing_may_be_repeated(call: Call, trained: Path) -> None:
    """At the last step, where every weight stays."""
    file = trained / "checkpoints" / "last.ckpt"
    first = torch.load(file, weights_only=True)["state_dict"]
    words = [*TINY, "logger=csv", "sampler=ddim"]
    result = call("train", *words, f"resume={trained}")
    assert result.code == 0, result.err
    second = torch.load(file, weights_only=True)["state_dict"]
    assert all(first[name].equal(tensor) for name, tensor in second.items())


@pytest.mark.long
def test_a_failure_ends_with_its_cause_and_leaves_its_traceback(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = [*TINY, "logger=csv", "run_dir=out", "callbacks.samples.directory=/proc/none"]
    result = spawn(tmp_path, "train", *words)
    assert result.code == 1
    assert "Traceback" not in result.err
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith("(its traceback is in out/train.log)")
    assert "Traceback" in (tmp_path / "out" / "train.log").read_text()
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "failed"


def test_a_refused_start_takes_no_time_from_a_run(call: Call, trained: Path) -> None:
    (trained / "status.json").write_text('{"status": "failed", "seconds": 18000.0}')
    assert_user_error(
        call("train", f"resume={trained}", "trainer.max_steps=-7"), "You passed in -7"
    )
    status = json.loads((trained / "status.json").read_text())
    assert (status["status"], status["seconds"]) == ("failed", 18000)


@pytest.mark.long
def test_a_disk_that_becomes_full_is_told_by_the_checkpoint_it_refuses(tmp_path: Path) -> None:
    """Not by status.json, which it refuses too. A limit on the size of files refuses all writes."""
    write_gifs(tmp_path / "gifs")
    words = ["logger=csv", "run_dir=out", "trainer.max_steps=100000", "~callbacks.samples"]
    # Nothing else is written: another file could be refused first.
    quiet = ["trainer.log_every_n_steps=100000", "trainer.val_check_interval=100000"]
    often = "callbacks.checkpoints.every_n_steps=5"
    process = start(tmp_path, "train", *TINY, *words, *quiet, often, cold=True)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    try:
        wait_for(last.exists)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
        _, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 1, err
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(r"cannot write \S+/checkpoints/\S+: File too large; [\d,]+ bytes", told[-1])
    assert is_whole(last)
