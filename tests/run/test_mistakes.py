"""Users' mistakes: one to five lines, exit code 2, no traceback.

Those that a value or a word shows by itself are test_values'; of these, a few are here as well.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.commands import TINY, Call, Result, assert_user_error, spawn, write_gifs

MISTAKES = {
    "unknown option": (["model=medain"], ["model/medain", "did you mean model=median?"]),
    "unknown group": (["modle=median"], ["modle", "did you mean model?"]),
    "key of another group": (["trainer.batch_size=8"], ["did you mean data.batch_size?"]),
    "no near option": (["sampler=dpm"], ["choose ancestral, ddim,", "unipc"]),
    "a value in a word of its own": (["seed", "1"], ["seed has no value: give KEY=VALUE"]),
    "nodes that nothing has started": (
        ["trainer.num_nodes=2"],
        ["trainer.num_nodes=2: start the ranks on each node with torchrun or srun"],
    ),
    "unknown key": (["trainer.max_stesp=4"], ["max_stesp", "did you mean trainer.max_steps"]),
    "unknown key in a callback": (["callbacks.ema.avrages=1"], ["mean callbacks.ema.averages?"]),
    "unknown key in a logger, forced": (
        ["logger=wandb", "+logger.projct=x"],
        ["logger has no option projct; did you mean project?"],
    ),
    "wrong type": (["optimizer.lr=fast"], ["optimizer.lr='fast'", "number"]),
    "wrong type in a callback": (
        ["callbacks.samples.every_n_steps=often"],
        ["callbacks.samples.every_n_steps='often'", "integer"],
    ),
    "broken override": (["model=[median"], ["[median"]),
    "no steps": (["noise.num_steps=0"], ["num_steps must be at least 1", "got 0"]),
    "no path": (["data=gif_folder", "data.path=???"], ["data.path must be given"]),
    "missing folder": (["data.path=nowhere"], ["nowhere", "does not exist"]),
    "empty folder": (["data.path=empty"], ["empty", ".gif"]),
    "a file as folder": (["data.path=gifs/00.gif"], ["gifs/00.gif", "not a folder"]),
    "no usable GIF": (["data.path=broken"], ["broken", "1"]),
    "size not divisible": (["data.size=7"], ["divisible", "got 7", "data.size to 6 or 8"]),
    "no evaluations": (["sampler.num_evaluations=0"], ["num_evaluations must be at least 1"]),
    "more evaluations than steps": (
        ["sampler.num_evaluations=51"],
        ["sampler: 51 intervals are more than the 50 steps", "50 of one call a step at most"],
    ),
    "more evaluations than usable steps": (
        ["model=median", "noise=hybrid", "sampler.num_evaluations=40"],
        ["sampler: 40 intervals are more than the 2", "log-SNR falls"],
    ),
    "more evaluations than steps, to compare": (
        [
            "+sampler@callbacks.samples.compare.a=ddim",
            "callbacks.samples.compare.a.num_evaluations=51",
        ],
        ["sampler: 51 intervals are more than the 50 steps"],
    ),
    "too short a chain for pairs": (
        ["model=median", "sampler=pair", "noise.num_steps=1", "sampler.num_evaluations=1"],
        ["sampler: after 1 steps the last 2 values", "set noise.num_steps higher"],
    ),
    "no output for the variance": (
        ["loss=hybrid_vlb", "network.out_channels=1"],
        ["model: this loss needs 2 output channels", "got 1; set network.out_channels=2"],
    ),
    "an output without a use": (
        ["network.out_channels=2"],
        ["model: this loss needs 1 output channels", "got 2; set network.out_channels=1"],
    ),
    "a variance that is not learned": (
        ["sampler=ancestral", "sampler.variance=null"],
        ["sampler: variance=null", "train with loss=hybrid_vlb, or set sampler.variance=0"],
    ),
    "unknown grid": (["sampler/grid=karas"], ["sampler/grid/karas", "did you mean"]),
    "unknown loss": (["loss=min_srn"], ["loss/min_srn", "did you mean loss=min_snr?"]),
    "beta of 1": (["noise.max_beta=1"], ["max_beta must lie in (0, 1), got 1"]),
    "a schedule inside of another length": (
        ["noise=matched", "noise.process.schedule.num_steps=9"],
        ["num_steps=50 must be that of the process to match, got 9"],
    ),
    "heads that do not fit": (["network.head_width=7"], ["head_width"]),
    "foreign target": (["model._target_=os.system"], ["os.system", "not allowed"]),
    "an attention that does not exist": (
        ["network.spatial_attention=[none,linaer]"],
        ["'linaer'] is not allowed", "'linear', 'full'"],
    ),
    "negative rate": (["optimizer.lr=-1"], ["optimizer", "-1"]),
    "no width": (["network.base_width=0"], ["network.base_width=0", "greater than 0"]),
    "an option left out": (
        ["~network.channels"],
        ["network: ", "missing", "'channels'"],
    ),
    "no callback": (["callbacks.hang=null"], ["callbacks.hang=None", "~callbacks.hang"]),
    "a number for a logger": (
        ["logger=default", "+logger.foo=3"],
        ["logger.foo=3 has no _target_", "~logger.foo"],
    ),
    "offset below zero": (["noise.offset=-1"], ["offset must be 0 or more"]),
    "W&B mode": (["logger=wandb", "logger.mode=ofline"], ["logger", "mode"]),
    "unwritable output": (["outputs_dir=/proc/none"], ["the run directory", "/proc/none"]),
    "more memory than there is": (
        ["data.batch_size=1000000"],
        ["data.batch_size=1000000 needs more than", "that are free", "add data.batch_size="],
    ),
    "a sharded model": (
        ["+trainer.strategy=fsdp"],
        ["trainer.strategy=fsdp", "all weights and gradients", "choose auto, ddp"],
    ),
    "an average that never moves": (
        ["callbacks.ema.averages.ema.decay=1"],
        ["decay must lie in [0, 1), got 1"],
    ),
    "more steps than tables can have": (
        ["noise.num_steps=100000000"],
        ["num_steps must be at least 1, at most 20000, got 100000000"],
    ),
    "more steps in a schedule inside": (
        ["noise=matched", "noise.process.schedule.num_steps=30000"],
        ["num_steps must be at least 1, at most 20000"],
    ),
    "a value that nobody logs": (
        ["callbacks.checkpoints.monitor=val/nope"],
        ["callbacks.checkpoints.monitor=val/nope", "no run logs that; choose val/error"],
    ),
    "a monitor of another case": (
        ["callbacks.checkpoints.monitor=Val/loss"],
        ["monitor=Val/loss", "no run logs that"],
    ),
    "a network of other channels": (
        ["network.channels=3"],
        ["model: clips have 1 channels, not 3: network.channels=1"],
    ),
    "not a run": (["resume=gifs"], ["gifs", "not a run of ddpm_lightning"]),
    "unknown option of a sweep": (
        ["-m", "seed=0,1", "sweep.max_paralel=2"],
        ["max_paralel", "did you mean sweep.max_parallel?"],
    ),
    "a sweep that resumes": (["-m", "seed=0,1", "resume=last"], ["resume=last", "new runs"]),
    "nothing to resume": (["ckpt_path=last"], ["no run"]),
    "missing checkpoint": (["ckpt_path=gone.ckpt"], ["gone.ckpt"]),
}
# Refused by objects that are built with Lightning's, beside callbacks and loggers; or, the first,
# while GIFs are decoded.
LATE = (
    "no usable GIF",
    "no evaluations",
    "more evaluations than steps",
    "more evaluations than usable steps",
    "too short a chain for pairs",
    "no output for the variance",
    "an output without a use",
    "a variance that is not learned",
    "negative rate",
)
# One of each kind, which every run of the tests makes; the others are left to make test-long.
COMMON = (
    *("unknown option", "key of another group", "a value in a word of its own"),
    *("unknown key in a callback", "wrong type", "broken override", "missing folder"),
    *("no usable GIF", "more evaluations than steps", "foreign target", "unwritable output"),
    *("more memory than there is", "a value that nobody logs", "not a run", "a sweep that resumes"),
)
SLOW = ("callbacks", "logger", "sampler@callbacks")  # beginnings of words that are about them


class Outcomes(NamedTuple):
    """What one process has said to all mistakes, and what it had imported by then."""

    results: dict[str, Result]
    modules: set[str]
    leaving: list[str]  # mistakes that left a run directory behind


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """Returns what came of all common or of all rare mistakes."""

    @cache
    def of(kind: str) -> Outcomes:
        folder = tmp_path_factory.mktemp("mistakes")
        write_gifs(folder / "gifs")
        (folder / "empty").mkdir()
        (folder / "broken").mkdir()
        (folder / "broken" / "a.gif").write_bytes(b"not a GIF at all")
        result = spawn(folder, "tests/run/mistaken", kind, cold=True)
        assert result.code == 0, result.err
        told = json.loads((folder / "told.json").read_text())
        results = {name: Result(*values) for name, values in told["results"].items()}
        return Outcomes(results, set(told["modules"]), told["leaving"])

    return of


KINDS = ["common", pytest.param("rare", marks=pytest.mark.long)]


def names_of(kind: str) -> list[str]:
    """Return the common mistakes, or the rare ones, in their order."""
    return [name for name in MISTAKES if (name in COMMON) == (kind == "common")]


def is_early(name: str) -> bool:
    """Return whether a mistake is found without Lightning."""
    words = MISTAKES[name][0]
    return name not in LATE and not any(w.strip("+~").startswith(SLOW) for w in words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("common", name) for name in names_of("common")),
        *(pytest.param("rare", name, marks=pytest.mark.long) for name in names_of("rare")),
    ],
)
def test_mistake_is_explained(kind: str, name: str, outcomes: Callable[[str], Outcomes]) -> None:
    assert_user_error(outcomes(kind).results[name], *MISTAKES[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_found_without_importing_lightning(
    kind: str, outcomes: Callable[[str], Outcomes]
) -> None:
    """Which alone takes as long as is allowed. Broken GIFs alone are found after it."""
    assert "hydra" in outcomes(kind).modules
    assert "lightning.pytorch" not in outcomes(kind).modules


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_refused_before_its_data_leaves_nothing(
    kind: str, outcomes: Callable[[str], Outcomes]
) -> None:
    assert outcomes(kind).leaving == (["no usable GIF"] if kind == "common" else [])


def words_of(name: str) -> list[str]:
    words = MISTAKES[name][0]
    logger = [] if any(word.startswith("logger") for word in words) else ["logger=csv"]
    return [*TINY, *logger, *words]


@pytest.mark.slow
def test_resuming_without_the_averages_says_so(call: Call, trained: Path) -> None:
    result = call("train", *TINY, "logger=csv", f"ckpt_path={trained}", "~callbacks.ema")
    assert_user_error(result, "averaged weights")


@pytest.mark.slow
def test_a_run_directory_is_never_used_twice(call: Call, trained: Path) -> None:
    before = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    result = call("train", *TINY, "logger=csv", f"run_dir={trained}")
    assert_user_error(result, "already exists", "resume=")
    after = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["state_dict"].keys() == before["state_dict"].keys()


@pytest.mark.slow
def test_a_mistake_in_a_real_process_prints_no_traceback(tmp_path: Path) -> None:
    assert_user_error(
        spawn(tmp_path, "train", "model=medain", cold=True), "did you mean model=median?"
    )


@pytest.mark.slow
def test_broken_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    group = tmp_path / "more" / "noise"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text("_target_: a\nnum_steps: [1, 2\nmax_beta: 1\n")
    result = spawn(tmp_path, "train", "--config-dir=more", "noise=mine", cold=True)
    assert_user_error(result, "mine.yaml", "line 3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("sample", "evaluate", "export", "ingest", "inspect_data", "show", "study")
        ),
    ],
)
def test_help_explains_with_examples(command: str, tmp_path: Path) -> None:
    result = spawn(tmp_path, command, "--help")
    assert result.code == 0, result.err
    assert f"python {command}.py" in result.out
