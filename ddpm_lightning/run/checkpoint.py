"""Finding runs and loading what they learned: a run directory holds all that sampling needs.

A run directory has config.yaml (resolved), checkpoints/last.ckpt and checkpoints/best.ckpt.
Checkpoints are read with weights_only, and the configuration may name only classes that run.config
allows.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hydra.utils import instantiate
from torch import nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.run.config import Node, check
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.training.module import DiffusionModule

PREFIX = {"raw": "denoiser.", "ema": "ema_denoiser."}  # of weights in a checkpoint
SCHEDULE_KEYS = ("warmup_steps", "cooldown", "val_draws")
FORM_KEYS = ("size", "num_frames", "fps", "channels")


class Run(NamedTuple):
    """A run directory, its checkpoint file and its resolved configuration."""

    directory: Path
    checkpoint: Path
    config: Node


def find_checkpoint(given: str, outputs: Path) -> Path:
    """The file meant by a run directory, a checkpoint file, or 'last': the newest in outputs."""
    if given == "last":
        found = sorted(outputs.rglob("checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise UserError(
                f"last: no run below {outputs}/ has a checkpoint yet; "
                "train one first, or give a run directory"
            )
        return found[-1]
    path = Path(given)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(
            f"{given}: no checkpoint there ({path} does not exist); "
            "give a run directory below outputs/, or a .ckpt file in one"
        )
    return path


def find_run(given: str, outputs: Path) -> Run:
    """The run that a checkpoint belongs to, with its configuration checked."""
    checkpoint = find_checkpoint(given, outputs)
    directory = checkpoint.resolve().parent.parent
    file = directory / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"{given}: {file} does not exist, so this is not a run of ddpm_lightning; "
            "a checkpoint must stay in its run directory"
        )
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{file} is not readable YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(config, dict) or not {"model", "data"} <= set(config):
        raise UserError(f"{file} is not the configuration of a run: it has no model or no data")
    check(config)
    return Run(directory, checkpoint, config)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, loaded on the CPU with weights_only; UserError for anything else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # what torch raises for foreign bytes has many types
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        raise UserError(f"{path} is damaged or not a checkpoint: {reason}") from e
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not any(key.startswith(PREFIX["raw"]) for key in state):
        raise UserError(f"{path} is not a checkpoint of ddpm_lightning: it holds no denoiser")
    return dict(checkpoint)


def load_denoisers(run: Run) -> tuple[dict[str, Denoiser], int]:
    """A run's denoisers by their weights, raw and averaged (ema), and the step they were saved at.

    They are in evaluation mode, on the CPU; a run trained without an average has the raw ones only.
    """
    checkpoint = read_checkpoint(run.checkpoint)
    state = checkpoint["state_dict"]
    denoisers = {name: _load(run, part) for name in PREFIX if (part := _part(state, name))}
    return denoisers, int(checkpoint.get("global_step", 0))


def _load(run: Run, state: dict[str, Any]) -> Denoiser:
    with user_errors(str(run.directory / "config.yaml")):
        module: DiffusionModule = instantiate(run.config["model"], _convert_="all")
    check_architecture(module.denoiser, state, run.checkpoint)
    module.denoiser.load_state_dict(state)
    return module.denoiser.eval()


def check_same_experiment(old: Run, new: Node) -> None:
    """UserError, naming the first difference, unless a new configuration continues an old one.

    The chain, the objective, the network and the form of the clips must be the same; how long and
    on what device it is trained, and what is logged, may change.
    """
    free = {"optimizer", "compile", *SCHEDULE_KEYS}
    kept = {"model": set(old.config["model"]) - free, "data": FORM_KEYS}
    for group, keys in kept.items():
        for key in sorted(keys):
            before, now = old.config[group].get(key), new[group].get(key)
            if before != now:
                raise UserError(
                    f"{old.directory} was trained with {group}.{key}={before}, now it is {now};\n"
                    f"to go on, repeat the words in {old.directory / 'command.txt'}"
                )


def check_resumable(module: DiffusionModule, averages: bool, path: Path) -> int:
    """The step a checkpoint was saved at; UserError unless training can go on from it."""
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    check_architecture(module.denoiser, _part(state, "raw"), path)
    if bool(_part(state, "ema")) != averages:
        raise UserError(
            f"{path} {'has no' if averages else 'has'} averaged weights; "
            f"resume with {'~callbacks.ema' if averages else 'callbacks.ema, as it was trained'}"
        )
    return int(checkpoint["global_step"])


def check_architecture(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    """UserError, naming the first difference, unless state fits the module's names and shapes."""
    expected = module.state_dict()
    for name in [*expected, *state]:
        if name not in state or name not in expected:
            problem = f"{name} is {'missing' if name not in state else 'unknown to the model'}"
        elif state[name].shape != expected[name].shape:
            problem = f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        else:
            continue
        raise UserError(
            f"{path} was trained with another architecture: {problem}; "
            "use the network, channels and base_width it was trained with"
        )


def _part(state: dict[str, Any], weights: str) -> dict[str, Any]:
    prefix = PREFIX[weights]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
