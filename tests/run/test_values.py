"""Values and words that are refused by themselves, one by one, before anything is built from them.

What a process makes of such a mistake is test_mistakes'.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm_lightning.run.config.check import Node, check_with_lightning, resolved
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.words import refuse_mistakes
from ddpm_lightning.run.directory.compose import check_composed
from ddpm_lightning.run.fitting.fit import build_trainer
from tests.commands import TINY
from tests.problems import composed

VALUES = {
    "ascent": (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "equal to 0"]),
    "no accumulation": (["trainer.accumulate_grad_batches=0"], ["batches=0", "greater than 0"]),
    "no average": (["+callbacks.ema.averages.x=3"], ["'x': 3}", "an instance of Decay"]),
    "an average of nothing": (["+callbacks.ema.averages.x=null"], ["averages", "of Decay"]),
    "no class of an average": (
        ["+callbacks.ema.averages.x={decay: 0.9}"],
        ["'x': {'decay': 0.9}", "of Decay"],
    ),
    "no training batches": (["+trainer.limit_train_batches=0"], ["limit_train_batches=0"]),
    "never validated": (["trainer.val_check_interval=0"], ["trainer.val_check_interval=0"]),
    "no checkpoints": (["+trainer.enable_checkpointing=false"], ["trainer.enable_checkpointing"]),
    "a logger of the trainer": (["+trainer.logger=false"], ["trainer.logger", "are groups"]),
    "all of the network in 16 bits": (["trainer.precision=16-true"], ["'16-true'", "'16-mixed'"]),
    "unknown key in a callback, forced": (
        ["+callbacks.checkpoints.evry_n_steps=1"],
        ["callbacks.checkpoints has no option evry_n_steps; did you mean every_n_steps?"],
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
    "half a step": (["noise.num_steps=1.5"], ["noise.num_steps=1.5", "integer"]),
    "size of three numbers": (["data.size=[8,8,8]"], ["[height, width]"]),
    "no frames": (["data.num_frames=0"], ["num_frames"]),
    "negative batch": (
        ["data.batch_size=-2"],
        ["data.batch_size=-2 is not allowed", "greater than 0"],
    ),
    "all held out": (["data.val_fraction=1.5"], ["data.val_fraction=1.5", "less than 1"]),
    "a seed that is none": (["seed=abc"], ["seed='abc'", "integer"]),
    "no validation draws": (["model.val_draws=0"], ["model.val_draws=0", "greater than 0"]),
    "no callback": (["callbacks.hang=null"], ["callbacks.hang=None", "~callbacks.hang"]),
    "a number for a callback": (["+callbacks.foo=3"], ["callbacks.foo=3 has no _target_"]),
    "no end": (["trainer.max_steps=-1", "+trainer.max_epochs=-1"], ["no end", "trainer.max_steps"]),
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
    "a checkpoint interval of none": (
        ["callbacks.checkpoints.every_n_steps=0"],
        ["callbacks.checkpoints.every_n_steps=0", "greater than 0"],
    ),
    "no precision": (["trainer.precision=8"], ["trainer.precision=8", "bf16-mixed"]),
    "a misspelt precision": (
        ["trainer.precision=bf61"],
        ["trainer.precision='bf61'", "bf16-mixed"],
    ),
    "a rate without end": (["optimizer.lr=inf"], ["optimizer.lr=inf", "a finite number"]),
    "a rate that is none": (["optimizer.lr=nan"], ["optimizer.lr=nan", "a finite number"]),
    "an offset without end": (["noise.offset=inf"], ["offset=inf", "finite"]),
    "frames longer than a GIF shows": (["data.fps=0.001"], ["fps must be at least 0.0015"]),
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
    "no sampler to compare": (
        ["+callbacks.samples.compare.x=3"],
        ["callbacks.samples.compare={'x': 3}", "an instance of Sampler"],
    ),
    "a directory that is a number": (["run_dir=2024"], ["run_dir=2024 is not", "a valid string"]),
    "a name that is a number": (["run_name=2024_01_01"], ["run_name=20240101 is not"]),
    "foreign target": (["model._target_=os.system"], ["os.system", "not allowed"]),
}
OF_LIGHTNING = {
    "trainer.max_steps=-5": "trainer: `max_steps` must be a non-negative integer or -1",
    "+trainer.limit_val_batches=2.5": r"trainer: .* 2.5 for limit_val_batches",
    "+trainer.gradient_clip_algorithm=foo": "trainer: .*foo is invalid. Allowed algorithms",
    "+trainer.fast_dev_run=-1": "trainer: fast_dev_run=-1 is not a valid",
    "+trainer.max_time=1h": "trainer: .*'1h'.* Expected a string in the format DD:HH:MM:SS",
    "+trainer.max_time={hour: 1}": "trainer: 'hour' is an invalid keyword",
    "+trainer.profiler=foo": "trainer: .*`profiler`.* can only be one of",
}
WORDS = {
    "added key that nothing reads": (
        ["+optimiser.lr=0.1"],
        ["nothing is called optimiser; did you mean optimizer?"],
    ),
    "dashes": (["--modle=median"], ["--modle=median", "KEY=VALUE without dashes", "flags are"]),
    "a value in a word of its own": (["seed", "1"], ["seed has no value: give KEY=VALUE"]),
    "a flag for a value": (["--seed", "1"], ["--seed", "without dashes"]),
    "a flag without its value": (["--cfg"], ["--cfg/-c: expected one argument", "flags are -m"]),
    "a value between flags": (["seed=1", "--cfg", "job", "seed=2"], ["seed=2", "after all flags"]),
    "an unknown flag": (["-q"], ["-q", "flags are -m, --help"]),
    "an option that has another place now": (
        ["+sweep.executor=slurm"],
        ["+sweep.executor=slurm: sweep.executor is now hydra/launcher: joblib"],
    ),
    "no option for a group": (["logger=null"], ["logger=null", "csv"]),
    "a path without a value": (["data.path="], ["data.path= is empty"]),
}


@pytest.fixture(scope="module")
def config() -> Node:
    return resolved(copy.deepcopy(composed(*TINY, "logger=csv", "run_dir=run")))


def changed(config: Node, word: str) -> Node:
    """Return a configuration with what a word of a command changes."""
    config = copy.deepcopy(config)
    override = OverridesParser.create().parse_override(word)
    *places, name = override.key_or_group.split(".")
    node: Any = config
    for place in places:
        node = node[place]
    if override.is_delete():
        del node[name]
    else:
        node[name] = override.value()
    return config


def check(config: Node) -> None:
    check_composed(config)
    check_with_lightning(config)


def assert_one_to_five_lines(error: UserError, parts: list[str]) -> None:
    message = str(error)
    assert 1 <= len(message.splitlines()) <= 5
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_refused_with_its_key(name: str, config: Node) -> None:
    words, parts = VALUES[name]
    for word in words:
        config = changed(config, word)
    with pytest.raises(UserError) as caught:
        check(config)
    assert_one_to_five_lines(caught.value, parts)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("trainer.accelerator=abacus", "invalid accelerator name: `accelerator='abacus'`"),
        ("trainer.accelerator=mps", "the accelerator is not available"),
        ("trainer.devices=abc", "`devices` selected with `CPUAccelerator` should be an int > 0"),
        ("trainer.devices=0", "`Trainer(devices=0)` value is not a valid input"),
        ("trainer.devices=[0,1]", "should be an int > 0"),
    ],
)
def test_lightning_refuses_what_this_machine_has_not(
    word: str, part: str, config: Node, tmp_path: Path
) -> None:
    devices = [] if word.startswith("trainer.acc") else ["trainer.accelerator=cpu"]
    for each in (*devices, word):
        config = changed(config, each)
    with pytest.raises(UserError) as caught:
        build_trainer(config, tmp_path)
    assert_one_to_five_lines(caught.value, ["trainer: ", part])


@pytest.mark.slow
@pytest.mark.parametrize("word", OF_LIGHTNING)
def test_a_value_that_lightning_refuses_is_a_users_mistake(
    word: str, config: Node, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=OF_LIGHTNING[word]):
        build_trainer(changed(config, word), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WORDS)
def test_a_word_is_refused_with_what_to_type(name: str) -> None:
    words, parts = WORDS[name]
    with pytest.raises(UserError) as caught:
        refuse_mistakes("config", words)
    assert_one_to_five_lines(caught.value, parts)


def test_what_is_meant_passes(config: Node) -> None:
    check(config)
    refuse_mistakes("config", [*TINY, "logger=csv"])
