"""Finding runs and loading what they learned: a run directory holds all that sampling needs.

Checkpoints are checked against their checksums and read with weights_only, and the configuration
may name only classes that config.check allows.
"""

import shlex
from collections.abc import Iterable
from os.path import relpath
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ddpm_lightning.averages import Window, combine, gamma_of
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files.bounded import read_small
from ddpm_lightning.files.checkpoints import by_step, newest_valid, read
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.check import (
    PATHS,
    STORED_TARGETS,
    Node,
    check_without_lightning,
    first_difference,
)
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.paste import hydra_word, path_command
from ddpm_lightning.run.config.secrets import find_leaves, redacted

PREFIX = {"raw": "denoiser.", "ema": "ema_denoiser."}  # of weights in a checkpoint
SCHEDULE_KEYS = ("warmup_steps", "cooldown", "val_draws")
_MAX_YAML_BYTES, _MAX_DEPTH = 2**20, 50
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FORM_KEYS = ("size", "num_frames", "fps", "channels")


class Run(NamedTuple):
    """A run directory, its checkpoint file and its resolved configuration."""

    directory: Path
    checkpoint: Path
    config: Node


def find_directory(name: str, outputs: Path) -> Path:
    """Return the run directory that is meant by itself, by a checkpoint file in it, or by 'last'.

    'last' is the run whose last.ckpt is the newest in outputs.
    """
    if name == "last":
        checkpoints = sorted(
            outputs.rglob("checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime
        )
        if not checkpoints:
            raise UserError(
                f"last: no run below {outputs}/ has a checkpoint yet; "
                "train one first, or give a run directory"
            )
        return checkpoints[-1].parent.parent
    path = Path(name)
    if not path.exists():
        raise UserError(
            f"{name}: no run or checkpoint there; "
            "give a run directory below outputs/, a .ckpt file in one, or a pipeline folder of "
            "diffusers"
        )
    directory = path if path.is_dir() else path.absolute().parent.parent
    if not (directory / "config.yaml").is_file():
        raise UserError(
            f"{name}: {directory / 'config.yaml'} does not exist, so this is not a run of "
            "ddpm_lightning, nor a pipeline of diffusers; a checkpoint must stay in its run "
            "directory, and sample.py and export.py alone take a file of export.py"
        )
    return directory


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the newest valid checkpoint of a run; None before its first."""
    with user_errors("checkpoint"):
        return newest_valid(directory / "checkpoints")


def find_run(name: str, outputs: Path) -> Run:
    """Return the run that a checkpoint belongs to, with its configuration checked."""
    directory = find_directory(name, outputs)
    checkpoint = Path(name) if Path(name).is_file() else newest_checkpoint(directory)
    if checkpoint is None:
        again = path_command("train.py", "resume", directory)
        raise UserError(f"{name}: no checkpoint there yet; go on with: {again}")
    return Run(directory, checkpoint, read_config(directory))


def read_config(directory: Path) -> Node:
    """Return a run's configuration, checked."""
    file = directory / "config.yaml"
    config = read_yaml(file)
    check_stored(config, file)
    return dict(config)


def read_yaml(file: Path) -> Any:
    """Return a file's content, perhaps a stranger's; UserError unless it is small, plain YAML."""
    depth = 0
    try:
        data = read_small(file, _MAX_YAML_BYTES)
        for event in yaml.parse(data, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
                raise ValueError("it holds aliases, or is too deep")
        return yaml.load(data, _Loader)
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise UserError(f"{file} is not readable YAML: {str(e).splitlines()[0]}") from e


def check_stored(config: Any, path: Path) -> None:
    """Raise UserError unless this is a run's configuration.

    It may be a stranger's, so only classes of this package and optimizers may be its targets.
    """
    model, data = map(config.get, ("model", "data")) if isinstance(config, dict) else (None, None)
    denoiser = model.get("denoiser") if isinstance(model, dict) else None
    if not isinstance(denoiser, dict) or not isinstance(data, dict):
        raise UserError(
            f"{path} is not the configuration of a run, or was written by an earlier version: use "
            "the revision of the code that trained it, in starts/01.json"
        )
    check_without_lightning({"model": model, "data": data}, STORED_TARGETS)
    check_without_lightning(config)


def check_places(config: Node, directory: Path, words: Iterable[str]) -> None:
    """Raise UserError where a stored configuration, perhaps a stranger's, would write outside
    of its run and data/, unless a cache of clips is there, or words of the command name the key.
    """
    named = {word.lstrip("+").partition("=")[0] for word in words}
    allowed = directory.resolve(), Path("data").resolve()
    has_digits = "Digits" in str(config["data"].get("source"))  # which are written there
    for key, text in find_leaves(config):
        root, name = key.partition(".")[0], key.rpartition(".")[2].partition("[")[0]
        is_written = name == "cache_path" or (key == "data.path" and has_digits)
        if root in ("callbacks", "logger", "trainer") and ".extractor." not in key:
            is_written = name in PATHS
        if not is_written or not isinstance(text, str) or key in named:
            continue
        place = Path(text.replace("\0", "")).resolve()
        manifests = (place.glob(f"{depth}manifest.json") for depth in ("", "*/", "*/*/"))
        is_cache = root == "data" and any(map(any, manifests))
        if not is_cache and not any(place.is_relative_to(folder) for folder in allowed):
            again = shlex.quote(hydra_word(key, text))
            raise UserError(
                f"{key}={text} lies outside {relpath(directory)} and data/; to write there all the "
                f"same, add {again} to the command"
            )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of ours, on the CPU; UserError for anything else."""
    with user_errors("checkpoint"):
        checkpoint = read(path, mmap=True)
    state, step = checkpoint.get("state_dict"), checkpoint.get("global_step")
    has_denoiser = isinstance(state, dict) and any(key.startswith(PREFIX["raw"]) for key in state)
    if not (has_denoiser and isinstance(step, int)):
        raise UserError(f"{path} is not a checkpoint of ddpm_lightning: no denoiser, or no step")
    return checkpoint


def _weights(run: Run) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the states of a checkpoint's weights by name, which are read when they are used, and
    its step.
    """
    checkpoint = read_checkpoint(run.checkpoint)
    state = checkpoint["state_dict"]
    states = {name: part for name in PREFIX if (part := _part(state, name))}
    others = checkpoint.get("callbacks", {}).get("EMA", {}).get("others", {})
    states |= {name: states["raw"] | weights for name, weights in others.items()}
    return states, int(checkpoint["global_step"])


def choose_denoiser(run: Run, weights: str | float | None = None) -> tuple[Denoiser, str, int]:
    """Return a run's denoiser, in evaluation mode on the CPU, the name of its weights, and the step
    that they were saved at.

    Args:
        weights: raw, ema, the first of the averages, or another by its name; the length of one that
            is rebuilt; None: averaged weights where the run has any, else raw ones.
    """
    states, step = _weights(run)
    if isinstance(weights, float):
        state, step = _rebuilt_average(run, weights, states["raw"])
    else:
        weights = str(weights or ("ema" if "ema" in states else "raw"))
        if weights not in states:
            raise UserError(f"{run.checkpoint} holds no weights {weights}, but {', '.join(states)}")
        state = states[weights]
    denoiser = build_denoiser(run.config["model"])
    load_weights(denoiser, state, run.checkpoint)
    return denoiser.eval(), str(weights), step


def _rebuilt_average(
    run: Run, relative_length: float, raw: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    """Return the weights of an average of this length, and the step of its last snapshot.

    It is a sum of the snapshots; buffers are those of the raw weights.
    """
    folder = run.directory / "averages"
    with user_errors("weights"):
        snapshots = [read(path, mmap=True) for path in by_step(folder)]
    averages = {
        Window(average["gamma"], snapshot["step"]): average["weights"]
        for snapshot in snapshots
        for average in snapshot["averages"].values()
    }
    if not averages:
        raise UserError(
            f"{folder} holds no snapshots of power-law averages to rebuild one from; train with "
            "callbacks.ema.snapshot_every_n_steps and an average of PowerDecay"
        )
    step = max(window.step for window in averages)
    with user_errors("weights"):
        coefficients = combine(list(averages), Window(gamma_of(relative_length), step))
    total = {}
    for name in next(iter(averages.values())):
        parts = zip(coefficients, averages.values(), strict=True)
        total[name] = sum(c * s[name].double() for c, s in parts).to(raw[name])
    return raw | total, step


def load_weights(denoiser: Denoiser, state: dict[str, Any], path: Path) -> None:
    """Give a denoiser the weights of a file.

    Raises:
        UserError: with the first difference, if they are those of another architecture, and for
            weights that are not finite.
    """
    try:
        denoiser.load_state_dict(state)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip()
        raise UserError(
            f"{path} was trained with another architecture: {problem:.300}; "
            "use the network, channels and base_width it was trained with"
        ) from error
    for name, weight in denoiser.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{path} holds weights that are not finite ({name}): its training had failed; take "
                "an earlier checkpoint"
            )


def check_same_experiment(directory: Path, old: Node, new: Node) -> None:
    """Raise UserError, naming the first difference, unless a configuration continues a run's.

    The chain, the objective, the network and the form of the clips must be the same; how long and
    on what device it is trained, and what is logged, may change.
    """
    free = {"optimizer", "compile", *SCHEDULE_KEYS}
    kept = {"model": set(old["model"]) - free, "data": FORM_KEYS}
    for group, keys in kept.items():
        for key in sorted(keys):
            before, now = old[group].get(key), redacted(new[group].get(key))
            if difference := first_difference(before, now, f"{group}.{key}"):
                where, before, now = difference
                raise UserError(
                    f"{directory} was trained with {where}={before}, now it is {now};\n"
                    "leave that word away to go on with it"
                )


def check_resumable(denoiser: Denoiser, averages: bool, path: Path) -> int:
    """Return the step of a checkpoint, and load its raw weights and the statistics of its clips.

    Raises:
        UserError: unless training can be resumed from it.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    load_weights(denoiser, _part(state, "raw"), path)
    if bool(_part(state, "ema")) != averages:
        raise UserError(
            f"{path} {'has no' if averages else 'has'} averaged weights; "
            f"resume with {'~callbacks.ema' if averages else 'callbacks.ema, as it was trained'}"
        )
    return int(checkpoint["global_step"])


def _part(state: dict[str, Any], weights: str) -> dict[str, Any]:
    prefix = PREFIX[weights]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
