"""Our constructors have the defaults of conf/, and can be called without a configuration.

Each test looks at all classes: to compose every option takes seconds, which collecting must not.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import zip_longest
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.noise.hybrid import HybridSchedule
from ddpm_lightning.noise.linear import LinearSchedule
from ddpm_lightning.run.config.check import META_KEYS, nodes
from tests.problems import CONF, OF_EVALUATE, OF_SHOW, build, composed, composed_alone, options

GROUPS = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir())
CHOICES = [
    f"${{{group}}}" for group in ("condition", "guidance", "times")
]  # that have a default without one
# Their values are a data set's or a recipe's: the classes leave them to whoever constructs them.
RECIPES = ("model", "data", *OF_SHOW)


@dataclass(frozen=True)
class Use:
    """One node of an option: its arguments, but for those that another group chooses, and which
    of them the file states as plain values.
    """

    option: str
    arguments: dict[str, Any]
    stated: frozenset[str]
    is_partial: bool


@cache
def uses() -> dict[str, list[Use]]:
    """The uses of each of our classes by any option of any group, by its path."""
    found: dict[str, list[Use]] = {}
    for group in GROUPS:
        for name in options(group):
            option = f"{group}={name}"
            cfg = _compositions()[option]
            place = "condition.caption" if group == "condition/text" else group.replace("/", ".")
            node = OmegaConf.select(cfg, place)
            values = OmegaConf.to_container(node, resolve=True) if node else {}
            raw = dict(nodes(OmegaConf.to_container(node) if node else {}, place))
            for where, value in nodes(values, place):
                if value["_target_"].startswith("ddpm_lightning."):
                    chosen = [k for k, v in raw.get(where, {}).items() if v in CHOICES]
                    own = {k: v for k, v in value.items() if k not in (*META_KEYS, *chosen)}
                    stated = frozenset(k for k in own if where in raw and _is_plain(raw[where][k]))
                    use = Use(option, own, stated, value.get("_partial_", False))
                    found.setdefault(value["_target_"], []).append(use)
    return found


@cache
def _compositions() -> dict[str, DictConfig]:
    """A composition that has it by option: the first option of every group in one, and so on.

    What holds other groups, or is held by one, has its own; so has what another command's alone is.
    """
    found: dict[str, DictConfig] = {}
    alike = []
    for group in GROUPS:
        if group.startswith(OF_EVALUATE):
            found |= {f"{group}={name}": composed_alone(group, name) for name in options(group)}
        elif group in OF_SHOW:
            found |= {word: composed(word) for word in (f"{group}={n}" for n in options(group))}
        elif group in ("experiment", "debug"):  # of which no class is built
            found |= {f"{group}={name}": OmegaConf.create() for name in options(group)}
        elif group.startswith("sampler/"):
            found |= {f"{group}={name}": composed_alone(group, name) for name in options(group)}
        elif "/" in group or group in ("model", "callbacks"):
            words = [f"{group}={name}" for name in options(group)]
            plain = ["condition=none"] if group == "model" else []  # as a Denoiser is by default
            found |= {word: composed(word, *plain, "run_dir=run") for word in words}
        else:
            alike.append([f"{group}={name}" for name in options(group)])
    for members in zip_longest(*alike):
        words = list(filter(None, members))
        found |= dict.fromkeys(words, composed(*words, "run_dir=run"))
    return found


def _is_plain(value: Any) -> bool:
    """Whether a file states it: no interpolation, nothing missing, no node to be built."""
    return "${" not in str(value) and "???" not in str(value) and not list(nodes(value, ""))


def parameters(factory: type) -> Mapping[str, inspect.Parameter]:
    """Of a constructor; where it hands on its keywords within the package, the base's too."""
    own = inspect.signature(factory).parameters
    base = factory.__base__
    is_open = any(p.kind is p.VAR_KEYWORD for p in own.values())
    if is_open and base is not None and base.__module__.startswith("ddpm_lightning."):
        return {**parameters(base), **own}
    return own


def comparable(value: Any) -> Any:
    """An object as its type and attributes, so that one that was built equals a default."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return comparable(instantiate(value, _convert_="all"))
        return {k: comparable(v) for k, v in value.items()} or None  # no entry is none at all
    if isinstance(value, partial):
        return value.func, comparable(value.keywords)
    if isinstance(value, list | tuple):
        return [comparable(v) for v in value]
    if type(value).__module__.startswith("ddpm_lightning."):
        return type(value), comparable(vars(value))
    return value


def differences(target: str, use: Use) -> dict[str, tuple[Any, Any]]:
    """Arguments whose defaults in the class are others than in the file: both, by name."""
    known = parameters(get_class(target))
    pairs = {
        key: (comparable(known[key].default), comparable(value))
        for key, value in use.arguments.items()
        if key in known and known[key].default is not inspect.Parameter.empty
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.slow
def test_defaults_of_a_class_are_those_of_an_option() -> None:
    """Where several options name a class, such as presets, they are those of one at least."""
    assert len(uses()) > 80
    for target, own in uses().items():
        by_option: dict[str, Any] = {}
        for use in own:
            by_option[use.option] = differences(target, use)
            if not by_option[use.option]:
                break
        assert {} in by_option.values(), (target, by_option)


@pytest.mark.slow
def test_what_a_file_states_has_a_default() -> None:
    """But for what comes before an argument that must be given, as Python asks."""
    for target, own in uses().items():
        known = parameters(get_class(target)).items()
        required = [k for k, p in known if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        for use in own:
            if not use.option.startswith(RECIPES):
                assert not required or required[-1] not in use.stated, (target, use.option)


@pytest.mark.slow
def test_a_class_is_constructed_from_what_it_requires() -> None:
    for target, own in uses().items():
        known = parameters(get_class(target))
        done: list[dict[str, Any]] = []
        for use in own:
            missing = any(value == "???" for value in use.arguments.values())
            if use.option.startswith(RECIPES) or use.is_partial or missing:
                continue
            required = {
                k: v
                for k, v in use.arguments.items()
                if k in known and known[k].default is inspect.Parameter.empty
            }
            if required not in done:
                built = instantiate({"_target_": target, **required}, _convert_="all")
                assert type(built) is get_class(target)
                done.append(required)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("linear", LinearSchedule), ("cosine", CosineSchedule), ("hybrid", HybridSchedule)],
)
def test_schedules_need_no_more_than_a_length(name: str, schedule: Any) -> None:
    assert torch.equal(schedule(1000).betas(), build("noise", name).betas())


def test_the_network_needs_no_more_than_its_channels() -> None:
    x = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert UNet3D(channels=3)(x, torch.zeros(2)).shape == x.shape
