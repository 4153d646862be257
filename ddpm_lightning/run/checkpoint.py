"""Finding runs and loading what they learned: a run directory holds all that sampling needs.

Checkpoints are checked against their checksums and read with weights_only, and the configuration
may name only classes that run.config allows.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from hydra.utils import instantiate
from torch import nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files.checkpoints import (
    DamagedCheckpoint,
    by_step,
    newest_valid,
    read,
)
from ddpm_lightning.run.config import Node, check
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.run.secrets import redacted
from ddpm_lightning.training.averages import Window, combine, gamma_of

if TYPE_CHECKING:  # importing it takes longer than a mistake may
    from ddpm_lightning.training.module import DiffusionModule

PREFIX = {"raw": "denoiser.", "ema": "ema_denoiser."}  # of weights in a checkpoint
SCHEDULE_KEYS = ("warmup_steps", "cooldown", "val_draws")
STORED_TARGETS = ("ddpm_lightning.", "torch.optim.")  # that a model and its data are made of
FORM_KEYS = ("size", "num_frames", "fps", "channels")


class Run(NamedTuple):
    """A run directory, its checkpoint file and its resolved configuration."""

    directory: Path
    checkpoint: Path
    config: Node


def find_directory(given: str, outputs: Path) -> Path:
    """The run directory meant by itself, by a checkpoint file in it, or by 'last': the one whose
    last.ckpt is the newest in outputs."""
    if given == "last":
        found = sorted(outputs.rglob("checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise UserError(
                f"last: no run below {outputs}/ has a checkpoint yet; "
                "train one first, or give a run directory"
            )
        return found[-1].parent.parent
    path = Path(given)
    if not path.exists():
        raise UserError(
            f"{given}: no run or checkpoint there; "
            "give a run directory below outputs/, or a .ckpt file in one"
        )
    directory = path if path.is_dir() else path.absolute().parent.parent
    if not (directory / "config.yaml").is_file():
        raise UserError(
            f"{given}: {directory / 'config.yaml'} does not exist, so this is not a run of "
            "ddpm_lightning; a checkpoint must stay in its run directory"
        )
    return directory


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest valid one of a run; None before its first."""
    try:
        return newest_valid(directory / "checkpoints")
    except DamagedCheckpoint as e:
        raise UserError(str(e)) from e


def find_run(given: str, outputs: Path) -> Run:
    """The run that a checkpoint belongs to, with its configuration checked."""
    directory = find_directory(given, outputs)
    checkpoint = Path(given) if Path(given).is_file() else newest_checkpoint(directory)
    if checkpoint is None:
        raise UserError(f"{given}: no checkpoint there yet; train on with resume={directory}")
    return Run(directory, checkpoint, read_config(directory))


def read_config(directory: Path) -> Node:
    """A run's configuration, checked."""
    file = directory / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{file} is not readable YAML: {str(e).splitlines()[0]}") from e
    check_stored(config, file)
    return dict(config)


def check_stored(config: Any, path: Path) -> None:
    """UserError unless this is a run's configuration; it may come from anyone, so only classes of
    this package and optimizers may be named where it is built from."""
    if not isinstance(config, dict) or not {"model", "data"} <= set(config):
        raise UserError(f"{path} is not the configuration of a run: it has no model or no data")
    check({"model": config["model"], "data": config["data"]}, STORED_TARGETS)
    check(config)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, loaded on the CPU with weights_only; UserError for anything else."""
    checkpoint = _whole(path)
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not any(key.startswith(PREFIX["raw"]) for key in state):
        raise UserError(f"{path} is not a checkpoint of ddpm_lightning: it holds no denoiser")
    return checkpoint


def _whole(path: Path) -> dict[str, Any]:
    try:
        return read(path)
    except (DamagedCheckpoint, OSError) as e:
        raise UserError(str(e)) from e


def load_denoisers(run: Run) -> tuple[dict[str, Denoiser], int]:
    """A run's denoisers by their weights, raw and averaged (ema, the first of the averages, and any
    others by their names), and the step they were saved at.

    They are in evaluation mode, on the CPU; a run trained without an average has the raw ones only.
    """
    checkpoint = read_checkpoint(run.checkpoint)
    state = checkpoint["state_dict"]
    parts = {name: part for name in PREFIX if (part := _part(state, name))}
    others = checkpoint.get("callbacks", {}).get("EMA", {}).get("others", {})
    parts |= {name: parts["raw"] | weights for name, weights in others.items()}
    denoisers = {name: build_denoiser(run, part) for name, part in parts.items()}
    return denoisers, int(checkpoint.get("global_step", 0))


def rebuild_average(run: Run, relative_length: float) -> tuple[Denoiser, int]:
    """The denoiser with an average of this length at the step of its last snapshot, and that step.

    It is a sum of the snapshots; buffers are those of the checkpoint.
    """
    folder = run.directory / "averages"
    snapshots = [_whole(path) for path in by_step(folder)]
    found = [
        (Window(average["gamma"], snapshot["step"]), average["weights"])
        for snapshot in snapshots
        for average in snapshot["averages"].values()
    ]
    if not found:
        raise UserError(
            f"{folder} holds no snapshots of power-law averages to rebuild one from; train with "
            "callbacks.ema.snapshot_every_n_steps and an average of PowerDecay"
        )
    step = max(window.step for window, _ in found)
    with user_errors("weights"):
        wanted = Window(gamma_of(relative_length), step)
    coefficients = combine([window for window, _ in found], wanted)
    parts = [weights for _, weights in found]
    total = {
        name: sum(c * part[name].double() for c, part in zip(coefficients, parts, strict=True))
        for name in parts[0]
    }
    raw = _part(read_checkpoint(run.checkpoint)["state_dict"], "raw")
    return build_denoiser(
        run, raw | {name: value.to(raw[name]) for name, value in total.items()}
    ), step


def choose_denoiser(run: Run, weights: str | float) -> tuple[Denoiser, int]:
    """With these weights, by name or by the length of an average to be rebuilt; and their step."""
    if isinstance(weights, float):
        return rebuild_average(run, weights)
    denoisers, step = load_denoisers(run)
    if weights not in denoisers:
        raise UserError(f"{run.checkpoint} holds no weights {weights}, but {', '.join(denoisers)}")
    return denoisers[weights], step


def build_denoiser(run: Run, state: dict[str, Any]) -> Denoiser:
    """The run's, with these weights, in evaluation mode; UserError if they are not its."""
    with user_errors(f"the configuration of {run.checkpoint}"):
        module: DiffusionModule = instantiate(run.config["model"], _convert_="all")
    check_architecture(module.denoiser, state, run.checkpoint)
    module.denoiser.load_state_dict(state)
    return module.denoiser.eval()


def check_same_experiment(directory: Path, new: Node) -> None:
    """UserError, naming the first difference, unless a new configuration continues a run's.

    The chain, the objective, the network and the form of the clips must be the same; how long and
    on what device it is trained, and what is logged, may change.
    """
    old = read_config(directory)
    free = {"optimizer", "compile", *SCHEDULE_KEYS}
    kept = {"model": set(old["model"]) - free, "data": FORM_KEYS}
    for group, keys in kept.items():
        for key in sorted(keys):
            before, now = old[group].get(key), redacted(new[group].get(key))
            if before != now:
                raise UserError(
                    f"{directory} was trained with {group}.{key}={before}, now it is {now};\n"
                    "leave that word away to go on with it"
                )


def check_resumable(module: "DiffusionModule", averages: bool, path: Path) -> int:
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
