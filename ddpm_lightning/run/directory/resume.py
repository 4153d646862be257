"""Going on with a run: its own stored configuration, with the values that the command changes.

The words of the command change single values of what was composed when the run began, before
interpolations, so what depends on them follows. Groups stay as they were. From a checkpoint that is
older than the run's newest a new run is forked.
"""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf

from ddpm_lightning.files.checkpoints import DamagedCheckpoint, newest_valid
from ddpm_lightning.run.config.check import check_without_lightning, resolved
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.hydra_inside import apply_override
from ddpm_lightning.run.config.job import NOT_OF_THE_RUN, Job
from ddpm_lightning.run.config.secrets import find_leaves
from ddpm_lightning.run.config.words import CONF
from ddpm_lightning.run.directory.checkpoint import (
    check_places,
    check_same_experiment,
    find_directory,
    newest_checkpoint,
    read_checkpoint,
    read_config,
    read_yaml,
)
from ddpm_lightning.run.directory.start import Start, new_start

_MAX_CHARACTERS = 2**14  # of texts with ${..}, which take long to parse


def resumed_start(given: str, job: Job) -> Start:
    """Return the run meant by a directory, a checkpoint file or 'last', in its own directory.

    It is resumed from its newest checkpoint; from its beginning if it has none. An older one that
    is given by itself makes a new run, its fork.
    """
    outputs = Path(job.cfg.outputs_dir)
    directory = find_directory(given, outputs)
    is_file = Path(given).is_file()
    checkpoint = Path(given) if is_file else newest_checkpoint(directory)
    stored = read_config(directory)
    cfg, choices = _composed(directory)
    if is_fork := is_file and _is_older(Path(given), directory):
        cfg.run_dir = cfg.run_id = None
    _apply(job.words, cfg, choices, directory)
    if is_fork:
        cfg.outputs_dir = job.cfg.outputs_dir
        OmegaConf.update(cfg, "parent", str(Path(given).absolute()), force_add=True)
        start = new_start(Job(cfg, job.words, choices))._replace(checkpoint=checkpoint)
    else:
        cfg.run_dir = str(directory.absolute())  # it may have been moved
        start = Start(directory, cfg, resolved(cfg), choices, checkpoint, is_new=False)
    check_same_experiment(directory, stored, start.config)
    check_places(start.config, start.directory, job.words)
    return start


def _is_older(checkpoint: Path, directory: Path) -> bool:
    """Return whether a run has a newer checkpoint that is whole."""
    try:
        newest = newest_valid(directory / "checkpoints")
    except DamagedCheckpoint:
        return False
    steps = [read_checkpoint(path)["global_step"] for path in (checkpoint, newest) if path]
    return bool(steps[0] < steps[-1])


def _composed(directory: Path) -> tuple[DictConfig, dict[str, str | None]]:
    file = directory / "composed.yaml"
    try:
        content: dict[str, Any] = read_yaml(file)
        texts = (str(text) for _, text in find_leaves(content["config"]))
        if sum(len(text) for text in texts if "${" in text) > _MAX_CHARACTERS:
            raise ValueError("it has more ${..} than any run")
        cfg, choices = OmegaConf.create(content["config"]), dict(content["choices"])
        OmegaConf.set_struct(cfg, True)
        check_without_lightning(resolved(cfg))
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        cause = str(e).partition("\n")[0]
        raise UserError(f"{file} is missing or damaged, so the run cannot go on: {cause}") from e
    return cfg, choices


def _apply(
    words: list[str], cfg: DictConfig, choices: dict[str, str | None], directory: Path
) -> None:
    """Change the values that a command names; one that is requeued repeats what was done."""
    for override in OverridesParser.create().parse_overrides(words):
        key, value = override.key_or_group, override.value()
        if key.split(".")[0] in NOT_OF_THE_RUN:
            continue
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: a run goes on alone, and -m begins new ones")
        if (CONF / key).is_dir():
            name = f"{key}@{override.package}" if override.package else key
            if str(choices.get(name)) != str(value):
                raise UserError(
                    f"{directory} was trained with {name}={choices.get(name)}, now it is {value};\n"
                    "a resumed run keeps its groups, but single values of them can be set"
                )
        elif not override.is_delete() or OmegaConf.select(cfg, key) is not None:
            if override.is_add():
                override.type = OverrideType.FORCE_ADD
            apply_override(override, cfg)
