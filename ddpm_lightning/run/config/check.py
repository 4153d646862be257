"""Resolving and checking a composed configuration before anything is built from it.

Keys are constructor arguments, so the constructors' own annotations are the schema: unknown keys
and values of a wrong type are refused by name. Targets are limited to a few packages, because a
run's configuration travels with it and is built again by sample.py and evaluate.py.
"""

import os
import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.hydra_inside import bounded_interpolations
from ddpm_lightning.run.config.secrets import HIDDEN, find_leaves, find_login
from ddpm_lightning.run.config.signatures import signature

TARGETS = ("ddpm_lightning.", "lightning.pytorch.", "torch.optim.")
STORED_TARGETS = ("ddpm_lightning.", "torch.optim.")  # of a run's model, data and sampler
META_KEYS = {"_target_", "_partial_"}
_MAX_INTERPOLATED = 2**19  # characters

Node = dict[str, Any]

# The keys that no constructor owns.
Seed = typing.Annotated[int, Field(ge=0, lt=2**32)]
Names = typing.Annotated[list[str], Field(min_length=1)]

SomeShare = PositiveInt | typing.Annotated[float, Field(gt=0, le=1)]  # batches, or of all

# The keys, of any node, that are paths.
PATHS = {
    *("outputs_dir", "run_dir", "resume", "ckpt_path", "checkpoint", "output", "path", "list"),
    *("splits", "cache_path", "directory", "save_dir", "dirpath", "default_root_dir", "log_dir"),
    *("root_dir", "filename"),
}

_TEXTS = (
    *("resume", "ckpt_path", "run_name", "run_dir", "run_id", "init", "keep", "mask", "push"),
    *("output", "report"),
)
_NODES = (
    *("model", "data", "condition", "guidance", "measure", "extractor", "film", "trainer"),
    *("callbacks", "logger", "ingest"),
)
TOP_LEVEL: dict[str, Any] = {
    **dict.fromkeys(_TEXTS, str | None),
    **dict.fromkeys(_NODES, Node),
    **dict.fromkeys(("verify", "skip", "loop", "invert"), bool),
    **dict.fromkeys(("outputs_dir", "checkpoint", "device", "directory"), str),
    **dict.fromkeys(("batch_size", "frames"), PositiveInt | None),
    "seed": Seed,
    "num_samples": PositiveInt,
    "strength": typing.Annotated[float, Field(gt=0, le=1)] | None,
    "known_log_snr": float,
    "weights": str | float | list[str | float] | None,
    "format": typing.Literal["safetensors", "torch_export", "diffusers"],
    "sampler": Node | None,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ingest": {
        "part": NonNegativeInt,
        "num_parts": PositiveInt,
        "num_workers": PositiveInt | None,
        "retry": typing.Literal["none", "transient"],
        "wait": bool,
    },
    "film": {"samplers": Names, **dict.fromkeys(("chains", "schedules"), Names | None)},
    "study": {
        **dict.fromkeys(("arms", "losses", "extractors"), Names),
        **dict.fromkeys(
            ("num_sampled", "num_held_out", "num_samples", "max_parallel"), PositiveInt
        ),
        "num_seeds": typing.Annotated[int, Field(ge=2)],  # fewer leave no interval
        "steps": typing.Annotated[int, Field(ge=5)],
        "more": list[str],
        "data": str | None,
        "evaluations": list[PositiveInt],
        "train": bool,
        "minutes": float | None,
        "words": dict[str, list[str]],
    },
    "curve": {"samplers": list[str], "evaluations": list[PositiveInt]},
    "sweep": {
        "max_parallel": PositiveInt,
        "num_random": PositiveInt | None,
        "seed": Seed,
        "metric": str,
    },
    # What Lightning takes, and what ruins a run; it refuses other values itself, in a line.
    "trainer": {
        **dict.fromkeys(("accumulate_grad_batches", "num_nodes"), PositiveInt),
        **dict.fromkeys(("log_every_n_steps", "min_epochs", "min_steps"), NonNegativeInt | None),
        "barebones": typing.Literal[False],
        "check_val_every_n_epoch": PositiveInt | None,
        "enable_checkpointing": typing.Literal[True] | None,
        "gradient_clip_val": NonNegativeFloat | None,
        "limit_train_batches": SomeShare | None,
        "num_sanity_val_steps": NonNegativeInt | typing.Literal[-1] | None,
        "precision": typing.Literal[
            *("auto", "32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16", 32, 16, None)
        ],
        "val_check_interval": SomeShare | str | dict[str, int] | None,
    },
}


def resolved(cfg: DictConfig) -> Node:
    """Return plain containers, every interpolation replaced by its value, paths settled.

    Raises:
        UserError: for a value that is missing, and for one that should not be stored.
    """
    settle_paths(cfg)
    if (key := find_login(OmegaConf.to_container(cfg, resolve=False))) is not None:
        raise UserError(
            f"{key} holds a login, which would be stored; export LOGIN=USER:PASSWORD, and give "
            f"'{key}=\"PROTOCOL://${{oc.env:LOGIN}}@HOST/..\"'"
        )
    with bounded_interpolations(_MAX_INTERPOLATED):
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing[0]} must be given: add {missing[0]}=VALUE to the command")
        return typing.cast(Node, OmegaConf.to_container(cfg, resolve=True))


def settle_paths(cfg: DictConfig) -> None:
    """Replace ~ in paths by the home directory, as a shell does at the beginning of a word."""
    for key, text in find_leaves(OmegaConf.to_container(cfg, resolve=False)):
        is_path = key.rpartition(".")[2].partition("[")[0] in PATHS
        if is_path and str(text).startswith("~"):
            OmegaConf.update(cfg, key, os.path.expanduser(text))


def check(config: Node) -> None:
    """Raise UserError unless top-level values and those of every _target_ have the right types."""
    check_without_lightning(config)
    check_with_lightning(config)


def check_without_lightning(config: Node, targets: tuple[str, ...] = TARGETS) -> None:
    """Check top-level values, the trainer's, and nodes whose class does not import Lightning, for
    that takes seconds.

    Args:
        targets: the beginnings of what a _target_ may name.
    Raises:
        UserError: if a value has a wrong type or a key is not known.
    """
    for key, value in find_leaves(config):
        if isinstance(value, str) and "${" in value:  # building would resolve it, and call anything
            raise UserError(f"{key}={value!r} is not allowed: give the value itself")
    for key in TOP_LEVEL.keys() & config.keys():
        _check_type(key, config[key], TOP_LEVEL[key])
    for name in ("ingest", "trainer"):
        check_options(name, config.get(name, {}))
    # The model after its parts, so that a wrong noise.num_steps is named as typed.
    for where, node in sorted(nodes(config, ""), key=lambda item: item[0].startswith("model")):
        if not _needs_lightning(where, node):
            _check_node(where, node, targets)


def check_with_lightning(config: Node) -> None:
    """Check the other nodes: trainer, callbacks, loggers and what trains the denoiser."""
    for where, node in nodes(config, ""):
        if _needs_lightning(where, node):
            _check_node(where, node, TARGETS)


def _needs_lightning(where: str, node: Node) -> bool:
    """Return whether a node's class imports Lightning and is built after all that do not."""
    is_late = where == "model" or where.startswith(("trainer", "callbacks", "logger"))
    return is_late and str(node["_target_"]).startswith(("lightning.", "ddpm_lightning.training."))


def first_difference(first: Any, other: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return (key, first value, other value) where two configurations differ first."""
    before, now = (dict(find_leaves(config, key)) for config in (first, other))
    pairs = ((name, before.get(name), now.get(name)) for name in {**before, **now})
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def check_options(name: str, node: Node) -> None:
    """Raise UserError unless the values of a top-level node have the types of OPTIONS."""
    for key in OPTIONS[name].keys() & node.keys():
        _check_type(f"{name}.{key}", node[key], OPTIONS[name][key])


def nodes(value: Any, where: str) -> Iterator[tuple[str, Node]]:
    """Yield the nodes with a _target_ in a configuration, with their paths in it."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield where, dict(value)
        for key, child in value.items():
            yield from nodes(child, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from nodes(child, f"{where}[{i}]")


def _check_node(where: str, node: Node, targets: tuple[str, ...]) -> None:
    target = node["_target_"]
    allowed = ", ".join(targets)
    foreign = UserError(f"{where}._target_={target!r} is not allowed: it is no class of {allowed}")
    if not (isinstance(target, str) and target.startswith(targets)):
        raise foreign
    try:
        takes = signature(target)
    except ImportError as e:
        raise UserError(f"{where}._target_={target!r} cannot be imported: {e}") from e
    # The class's own module too: a dotted path can lead out of an allowed package again.
    if not f"{takes.module}.".startswith(targets):
        raise foreign
    for key, value in node.items():
        if key in META_KEYS:
            continue
        if key not in takes.hints:
            if takes.is_open and not key.startswith("_"):
                continue
            near = get_close_matches(key, takes.hints, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(takes.hints)}"
            raise UserError(f"{where} has no option {key}{hint}")
        _check_type(f"{where}.{key}", value, OPTIONS.get(where, {}).get(key) or takes.hints[key])


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


def _check_type(where: str, value: Any, hint: Any) -> None:
    if isinstance(value, str) and HIDDEN in value:  # in a run's stored configuration
        return
    try:
        adapter = _adapter(hint)
    except (PydanticUserError, SchemaError, NameError):  # a type that is not known here
        return
    try:
        adapter.validate_python(value, strict=isinstance(value, str | bool))
    except ValidationError as e:
        # A node stands for what will be built from it, and is checked by itself.
        errors = [error for error in e.errors() if not any(nodes(error["input"], ""))]
        if not errors:
            return
        choice = " or ".join(dict.fromkeys(error["msg"] for error in errors))
        choice = choice.replace("Input", "it")
        raise UserError(f"{where}={value!r} is not allowed: {choice}") from e
