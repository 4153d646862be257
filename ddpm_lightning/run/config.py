"""Resolving and checking a composed configuration before anything is built from it.

Keys are constructor arguments, so the constructors' own annotations are the schema: unknown keys
and values of a wrong type are refused by name. Targets are limited to a few packages, because a
run's configuration travels with it and is built again by sample.py and evaluate.py.
"""

import inspect
import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from ddpm_lightning.run.errors import UserError
from ddpm_lightning.run.secrets import find_login

TARGETS = ("ddpm_lightning.", "lightning.pytorch.", "torch.optim.")
META_KEYS = {"_target_", "_partial_"}
REPLACED = {"trainer.precision": "auto"}  # before anything is built, by run.precision

Node = dict[str, Any]

# The keys that no constructor owns.
Seed = typing.Annotated[int, Field(ge=0, lt=2**32)]


TOP_LEVEL: dict[str, Any] = {
    "seed": Seed,
    "resume": str | None,
    "ckpt_path": str | None,
    "run_name": str | None,
    "run_dir": str | None,
    "run_id": str | None,
    "outputs_dir": str,
    "checkpoint": str,
    "num_samples": PositiveInt,
    "num_draws": PositiveInt,
    "num_clips": PositiveInt,
    "batch_size": PositiveInt,
    "weights": str | float,
    "device": str,
    "output": str | None,
    "model": Node,
    "data": Node,
    "sampler": Node,
    "likelihood": Node | None,
    "trainer": Node,
    "callbacks": Node,
    "logger": Node,
    "ingest": Node,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ingest": {
        "part": NonNegativeInt,
        "num_parts": PositiveInt,
        "num_workers": PositiveInt | None,
        "retry": typing.Literal["none", "transient"],
        "wait": bool,
    },
    "sweep": {
        "max_parallel": PositiveInt,
        "num_random": PositiveInt | None,
        "seed": Seed,
        "metric": str,
        "executor": typing.Literal["processes", "slurm", "submitit_local"],
        "slurm": Node,
    },
}


def resolved(cfg: DictConfig) -> Node:
    """Plain containers, every interpolation replaced by its value.

    UserError for a value that is missing, and for one that should not be stored.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} must be given: add {missing[0]}=VALUE to the command")
    if (key := find_login(OmegaConf.to_container(cfg, resolve=False))) is not None:
        raise UserError(
            f"{key} holds a login, which would be stored; export LOGIN=USER:PASSWORD, and give "
            f"'{key}=\"PROTOCOL://${{oc.env:LOGIN}}@HOST/..\"'"
        )
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return typing.cast(Node, container)


def check(config: Node, targets: tuple[str, ...] = TARGETS) -> None:
    """UserError unless top-level values, and every node with a _target_, have the right types.

    Args:
        targets: the beginnings of what a _target_ may name.
    """
    for key in TOP_LEVEL.keys() & config.keys():
        _check_type(key, config[key], TOP_LEVEL[key])
    if "ingest" in config:
        check_options("ingest", config["ingest"])
    # The model last: a wrong noise.num_steps is then named as such, not as a part of the model.
    for where, node in sorted(_targets(config, ""), key=lambda item: item[0].startswith("model")):
        _check_node(where, node, targets)


def check_options(name: str, node: Node) -> None:
    """The same for a top-level node that is no class's."""
    for key, value in node.items():
        _check_type(f"{name}.{key}", value, OPTIONS[name][key])


def _targets(value: Any, where: str) -> Iterator[tuple[str, Node]]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield where, dict(value)
        for key, child in value.items():
            yield from _targets(child, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _targets(child, f"{where}[{i}]")


def _check_node(where: str, node: Node, targets: tuple[str, ...]) -> None:
    target = node["_target_"]
    if not (isinstance(target, str) and target.startswith(targets)):
        raise UserError(
            f"{where}._target_={target!r} is not allowed, not a class of {', '.join(targets)}"
        )
    try:
        factory = get_object(target)
    except Exception as e:
        raise UserError(f"{where}._target_={target!r} cannot be imported: {e}") from e
    # The class's own module too: a dotted path can lead out of an allowed package again.
    if not inspect.isclass(factory) or not f"{factory.__module__}.".startswith(targets):
        raise UserError(f"{where}._target_={target!r} is not a class of {', '.join(targets)}")
    parameters = _parameters(factory)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(factory)
    for key, value in node.items():
        if key in META_KEYS:
            continue
        if key not in parameters:
            if open_ended and not key.startswith("_"):
                continue
            near = get_close_matches(key, parameters, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(parameters)}"
            raise UserError(f"{where} has no option {key}{hint}")
        if REPLACED.get(f"{where}.{key}") == value:
            continue
        if key in hints and not _holds_target(value):
            _check_type(f"{where}.{key}", value, hints[key])


def _parameters(factory: type) -> dict[str, inspect.Parameter]:
    """The constructor's; arguments passed through ** are looked up in the base class."""
    parameters = dict(inspect.signature(factory).parameters)
    variadic = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    base = factory.__base__
    if variadic and factory.__module__.startswith("ddpm_lightning.") and base is not None:
        del parameters[variadic[0]]
        return _parameters(base) | parameters
    return parameters


def _hints(factory: type) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for ancestor in reversed(factory.__mro__):
        constructor = ancestor.__dict__.get("__init__")
        if constructor is not None and ancestor is not object:
            try:
                hints |= typing.get_type_hints(constructor)
            except (NameError, TypeError):  # a foreign class whose annotations need its own imports
                continue
    return hints


def _holds_target(value: Any) -> bool:
    return bool(list(_targets(value, "")))


def _check_type(where: str, value: Any, hint: Any) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return
    try:
        adapter.validate_python(value, strict=isinstance(value, str | bool))
    except ValidationError as e:
        wanted = e.errors()[0]["msg"].removeprefix("Input should be ")
        raise UserError(f"{where}={value!r} is not allowed: it should be {wanted}") from e
