"""Users' mistakes: one to five lines, exit code 2, no traceback."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.commands import TINY, Call, Result, assert_user_error, spawn, write_gifs

MISTAKES = {
    "unknown option": (["model=medain"], ["model/medain", "did you mean model=median?"]),
    "unknown group": (["modle=median"], ["modle", "did you mean model?"]),
    "key of another group": (["trainer.batch_size=8"], ["did you mean data.batch_size?"]),
    "added key that nothing reads": (
        ["+optimiser.lr=0.1"],
        ["nothing is called optimiser; did you mean optimizer?"],
    ),
    "no near option": (["sampler=dpm"], ["choose ancestral, ddim,", "unipc"]),
    "no number of devices": (["trainer.devices=abc"], ["trainer.devices=abc"]),
    "no devices": (["trainer.devices=0"], ["trainer.devices=0", "1 or more"]),
    "ascent": (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "equal to 0"]),
    "no accumulation": (["trainer.accumulate_grad_batches=0"], ["batches=0", "greater than 0"]),
    "endless": (["trainer.max_steps=-5"], ["trainer.max_steps=-5", "equal to 0, or -1"]),
    "more than all batches": (["+trainer.limit_val_batches=2.5"], ["limit_val_batches=2.5", "1"]),
    "unknown way of clipping": (
        ["+trainer.gradient_clip_algorithm=foo"],
        ["trainer.gradient_clip_algorithm='foo'", "'norm' or 'value'"],
    ),
    "dashes": (["--modle=median"], ["--modle=median", "without dashes, model=median; flags are"]),
    "a value in a word of its own": (["seed", "1"], ["seed has no value: give KEY=VALUE"]),
    "a flag for a value": (["--seed", "1"], ["without dashes, seed=VALUE;"]),
    "a flag without its value": (["--cfg"], ["--cfg/-c: expected one argument", "flags are -m"]),
    "a value between flags": (["seed=1", "--cfg", "job", "seed=2"], ["seed=2", "after all flags"]),
    "an unknown flag": (["-q"], ["-q", "KEY=VALUE; flags are -m, --help"]),
    "nodes that nothing has started": (
        ["trainer.num_nodes=2"],
        ["trainer.num_nodes=2: start the ranks on each node with torchrun or srun"],
    ),
    "no average": (
        ["+callbacks.ema.averages.x=3"],
        ["callbacks.ema.averages.x=3", "whose _target_ is a Decay of", "or PowerDecay"],
    ),
    "an average of nothing": (["+callbacks.ema.averages.x=null"], ["averages.x=None", "a Decay"]),
    "no class of an average": (
        ["+callbacks.ema.averages.x={decay: 0.9}"],
        ["callbacks.ema.averages.x={'decay': 0.9}", "whose _target_ is a Decay"],
    ),
    "no sampler to compare": (
        ["+callbacks.samples.compare.x=3"],
        ["callbacks.samples.compare.x=3", "is a Sampler of ddpm_lightning.samplers"],
    ),
    "no training batches": (["+trainer.limit_train_batches=0"], ["limit_train_batches=0"]),
    "fewer than no steps": (["+trainer.fast_dev_run=-1"], ["trainer.fast_dev_run=-1"]),
    "a time without colons": (["+trainer.max_time=1h"], ["max_time='1h'", "should match pattern"]),
    "a time of unknown unit": (
        ["+trainer.max_time={hour: 1}"],
        ["max_time={'hour': 1}", "'hours'"],
    ),
    "never validated": (["trainer.val_check_interval=0"], ["trainer.val_check_interval=0"]),
    "no checkpoints": (["+trainer.enable_checkpointing=false"], ["trainer.enable_checkpointing"]),
    "a logger of the trainer": (["+trainer.logger=false"], ["trainer.logger", "are groups"]),
    "numbers of GPUs without one": (
        ["trainer.devices=[0,1]"],
        ["trainer.devices=[0, 1] is not possible; choose auto or, on a CPU, how many"],
    ),
    "all of the network in 16 bits": (["trainer.precision=16-true"], ["'16-true'", "'16-mixed'"]),
    "unknown key": (["trainer.max_stesp=4"], ["max_stesp", "did you mean trainer.max_steps"]),
    "unknown key in a callback": (["callbacks.ema.avrages=1"], ["mean callbacks.ema.averages?"]),
    "unknown key in a callback, forced": (
        ["+callbacks.checkpoints.evry_n_steps=1"],
        ["callbacks.checkpoints has no option evry_n_steps; did you mean every_n_steps?"],
    ),
    "unknown key in a logger, forced": (
        ["logger=wandb", "+logger.projct=x"],
        ["logger has no option projct; did you mean project?"],
    ),
    "unknown key in the trainer, forced": (
        ["+trainer.max_stesp=4"],
        ["trainer has no option max_stesp; did you mean max_steps?"],
    ),
    "unknown key, forced": (["+network.widht=4"], ["network has no option widht"]),
    "wrong type": (["optimizer.lr=fast"], ["optimizer.lr='fast'", "number"]),
    "wrong type in the trainer": (
        ["trainer.max_steps=abc"],
        ["trainer.max_steps='abc'", "integer"],
    ),
    "wrong type in the data": (["data.batch_size=many"], ["data.batch_size='many'", "integer"]),
    "wrong type in a callback": (
        ["callbacks.samples.every_n_steps=often"],
        ["callbacks.samples.every_n_steps='often'", "integer"],
    ),
    "wrong type in a list": (["network.width_multipliers=[1,x]"], ["width_multipliers"]),
    "broken override": (["model=[median"], ["[median"]),
    "no steps": (["noise.num_steps=0"], ["num_steps must be at least 1", "got 0"]),
    "half a step": (["noise.num_steps=1.5"], ["noise.num_steps=1.5", "integer"]),
    "no path": (["data=gif_folder", "data.path=???"], ["data.path must be given"]),
    "missing folder": (["data.path=nowhere"], ["nowhere", "does not exist"]),
    "empty folder": (["data.path=empty"], ["empty", ".gif"]),
    "a file as folder": (["data.path=gifs/00.gif"], ["gifs/00.gif", "not a folder"]),
    "no usable GIF": (["data.path=broken"], ["broken", "1"]),
    "size not divisible": (["data.size=7"], ["divisible", "got 7", "data.size to 6 or 8"]),
    "size of three numbers": (["data.size=[8,8,8]"], ["[height, width]"]),
    "no frames": (["data.num_frames=0"], ["num_frames"]),
    "negative batch": (
        ["data.batch_size=-2"],
        ["data.batch_size=-2 is not allowed", "greater than 0"],
    ),
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
    "an option that has another name now": (
        ["network.outputs=2"],
        ["network.outputs=2: network.outputs is now network.out_channels"],
    ),
    "an option that has another place now": (
        ["model.data_std=0.3"],
        ["model.data_std=0.3: model.data_std is now measured on the training clips"],
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
    "all held out": (["data.val_fraction=1.5"], ["data.val_fraction=1.5", "less than 1"]),
    "heads that do not fit": (["network.head_width=7"], ["head_width"]),
    "absent accelerator": (["trainer.accelerator=tpu"], ["trainer"]),
    "unknown accelerator": (["trainer.accelerator=abacus"], ["abacus"]),
    "foreign target": (["model._target_=os.system"], ["os.system", "not allowed"]),
    "a seed that is none": (["seed=abc"], ["seed='abc'", "integer"]),
    "no option for a group": (["logger=null"], ["logger=null", "csv"]),
    "an attention that does not exist": (
        ["network.spatial_attention=[none,linaer]"],
        ["got 'linaer'; did you mean linear?"],
    ),
    "negative rate": (["optimizer.lr=-1"], ["optimizer", "-1"]),
    "no validation draws": (["model.val_draws=0"], ["model.val_draws=0", "greater than 0"]),
    "no width": (["network.base_width=0"], ["base_width", "at least 1"]),
    "an option left out": (
        ["~network.channels"],
        ["needs channels, which is not given; add ++network.channels="],
    ),
    "no callback": (["callbacks.hang=null"], ["callbacks.hang=None", "~callbacks.hang"]),
    "a number for a callback": (["+callbacks.foo=3"], ["callbacks.foo=3 has no _target_"]),
    "a number for a logger": (
        ["logger=default", "+logger.foo=3"],
        ["logger.foo=3 has no _target_", "~logger.foo"],
    ),
    "offset below zero": (["noise.offset=-1"], ["offset must be 0 or more"]),
    "W&B mode": (["logger=wandb", "logger.mode=ofline"], ["logger", "mode"]),
    "no end": (["trainer.max_steps=-1", "+trainer.max_epochs=-1"], ["no end", "trainer.max_steps"]),
    "unwritable output": (["outputs_dir=/proc/none"], ["the run directory", "/proc/none"]),
    "an absent GPU": (["trainer.accelerator=gpu"], ["trainer.accelerator=gpu", "auto takes what"]),
    "more memory than there is": (
        ["data.batch_size=1000000"],
        ["data.batch_size=1000000 needs more than", "that are free", "add data.batch_size="],
    ),
    "a sharded model": (
        ["+trainer.strategy=fsdp"],
        ["trainer.strategy=fsdp", "all weights and gradients", "choose auto, ddp"],
    ),
    "a sharded model with options": (
        ["+trainer.strategy={_target_: lightning.pytorch.strategies.DeepSpeedStrategy}"],
        ["DeepSpeedStrategy", "choose auto, ddp"],
    ),
    "ranks that are no processes of train.py": (
        ["+trainer.strategy=ddp_spawn"],
        ["trainer.strategy=ddp_spawn", "choose auto, ddp"],
    ),
    "no strategy": (["+trainer.strategy=null"], ["trainer.strategy=None", "choose auto, ddp"]),
    "no patience": (["callbacks.hang.seconds=0"], ["callbacks.hang.seconds=0", "greater than 0"]),
    "an average that never moves": (
        ["callbacks.ema.averages.ema.decay=1"],
        ["decay must lie in [0, 1), got 1"],
    ),
    "a checkpoint interval of none": (
        ["callbacks.checkpoints.every_n_steps=0"],
        ["callbacks.checkpoints.every_n_steps=0", "greater than 0"],
    ),
    "no precision": (["trainer.precision=8"], ["trainer.precision=8", "bf16-mixed"]),
    "a misspelt precision": (
        ["trainer.precision=bf61"],
        ["trainer.precision='bf61'", "bf16-mixed"],
    ),
    "a rate without end": (["optimizer.lr=inf"], ["optimizer.lr=inf", "give a finite number"]),
    "a rate that is none": (["optimizer.lr=nan"], ["optimizer.lr=nan", "give a finite number"]),
    "an offset without end": (["noise.offset=inf"], ["offset=inf", "finite"]),
    "more steps than tables can have": (
        ["noise.num_steps=100000000"],
        ["num_steps must be at least 1, at most 20000, got 100000000"],
    ),
    "more steps in a schedule inside": (
        ["noise=matched", "noise.process.schedule.num_steps=30000"],
        ["num_steps must be at least 1, at most 20000"],
    ),
    "frames longer than a GIF shows": (["data.fps=0.001"], ["fps must be at least 0.0015"]),
    "a value that nobody logs": (
        ["callbacks.checkpoints.monitor=val/nope"],
        ["callbacks.checkpoints.monitor=val/nope", "no run logs that; choose val/error"],
    ),
    "a monitor of another case": (
        ["callbacks.checkpoints.monitor=Val/loss"],
        ["monitor=Val/loss", "no run logs that"],
    ),
    "a directory that is a number": (["run_dir=2024"], ["Hydra reads 2024", 'run_dir="2024"']),
    "a path without a value": (["data.path="], ["data.path= is empty"]),
    "a network of other channels": (
        ["network.channels=3"],
        ["model: clips have 1 channels, not 3: network.channels=1"],
    ),
    "a decline longer than the run": (["model.cooldown=2"], ["model.cooldown=2", "equal to 1"]),
    "no samples": (
        ["callbacks.samples.num_samples=0"],
        ["callbacks.samples.num_samples=0", "greater than 0"],
    ),
    "no tolerance": (["callbacks.numerics.max_in_a_row=0"], ["max_in_a_row=0", "greater than 0"]),
    "no averages": (["~callbacks.ema.averages.ema"], ["callbacks.ema.averages={}", "at least 1"]),
    "no snapshots": (
        ["callbacks.ema.snapshot_every_n_steps=0"],
        ["callbacks.ema.snapshot_every_n_steps=0", "greater than 0"],
    ),
    "not a run": (["resume=gifs"], ["gifs", "not a run of ddpm_lightning"]),
    "options of a sweep without one": (["sweep.max_parallel=2"], ["is about sweeps; add -m"]),
    "a sweep of none at a time": (
        ["-m", "seed=0,1", "sweep.max_parallel=0"],
        ["sweep.max_parallel=0", "greater than 0"],
    ),
    "unknown option of a sweep": (
        ["-m", "seed=0,1", "sweep.max_paralel=2"],
        ["max_paralel", "did you mean sweep.max_parallel?"],
    ),
    "unknown option in a sweep": (["-m", "noise=linear,cosin"], ["did you mean noise=cosine?"]),
    "an interval in a grid": (["-m", "optimizer.lr=interval(0,1)"], ["interval", "num_random"]),
    "a sweep that resumes": (["-m", "seed=0,1", "resume=last"], ["resume=last", "new runs"]),
    "nothing to resume": (["ckpt_path=last"], ["no run"]),
    "missing checkpoint": (["ckpt_path=gone.ckpt"], ["gone.ckpt"]),
}
# Refused by objects that are built with Lightning's, beside callbacks and loggers; or, the first,
# while GIFs are decoded.
LATE = (
    "no usable GIF",
    "unknown key in the trainer, forced",
    "no evaluations",
    "more evaluations than steps",
    "more evaluations than usable steps",
    "too short a chain for pairs",
    "no output for the variance",
    "an output without a use",
    "a variance that is not learned",
    "negative rate",
    "no validation draws",
    "a decline longer than the run",
)
SLOW = ("callbacks", "logger", "sampler@callbacks")  # beginnings of words that are about them


AT_ONCE = ("unknown option", "wrong type", "missing folder", "no width", "foreign target")


class Outcomes(NamedTuple):
    """What one process has said to all mistakes, and what it had imported by then."""

    results: dict[str, Result]
    modules: set[str]
    leaving: list[str]  # mistakes that left a run directory behind


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("mistakes")
    write_gifs(folder / "gifs")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "a.gif").write_bytes(b"not a GIF at all")
    result = spawn(folder, "tests/run/mistaken", cold=True)
    assert result.code == 0, result.err
    told = json.loads((folder / "told.json").read_text())
    results = {name: Result(*values) for name, values in told["results"].items()}
    return Outcomes(results, set(told["modules"]), told["leaving"])


@pytest.mark.parametrize("name", AT_ONCE)
def test_mistake_is_explained_at_once(name: str, call: Call) -> None:
    assert_user_error(call("train", *words_of(name)), *MISTAKES[name][1])


def is_early(name: str) -> bool:
    """Return whether a mistake is found without Lightning."""
    words = MISTAKES[name][0]
    return name not in LATE and not any(w.strip("+~").startswith(SLOW) for w in words)


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_explained(name: str, outcomes: Outcomes) -> None:
    assert_user_error(outcomes.results[name], *MISTAKES[name][1])


@pytest.mark.slow
def test_mistakes_are_found_without_importing_lightning(outcomes: Outcomes) -> None:
    """Which alone takes as long as is allowed. Broken GIFs alone are found after it."""
    assert "hydra" in outcomes.modules
    assert "lightning.pytorch" not in outcomes.modules


@pytest.mark.slow
def test_a_run_that_is_refused_before_its_data_leaves_nothing(outcomes: Outcomes) -> None:
    assert outcomes.leaving == ["no usable GIF"]


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
def test_broken_gifs_are_skipped_and_counted(call: Call, tmp_path: Path) -> None:
    (tmp_path / "gifs" / "bad.gif").write_bytes(b"<html>404</html>")
    whole = (tmp_path / "gifs" / "00.gif").read_bytes()
    (tmp_path / "gifs" / "cut.gif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "gifs" / "again.gif").write_bytes(whole)
    result = spawn(tmp_path, "train", *TINY, "logger=csv")
    assert result.code == 0, result.err
    for cause in ("1 not_a_gif", "1 truncated", "1 duplicate"):
        assert cause in result.out + result.err


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
    ["train", "sample", "evaluate", "export", "ingest", "inspect_data", "show", "study"],
)
def test_help_explains_with_examples(command: str, tmp_path: Path) -> None:
    result = spawn(tmp_path, command, "--help")
    assert result.code == 0, result.err
    assert f"python {command}.py" in result.out
