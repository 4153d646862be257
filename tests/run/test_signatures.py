"""Signatures read from source files are those that importing gives."""

import inspect
import typing
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from ddpm_lightning.run.config import nodes
from ddpm_lightning.run.signatures import is_slow, signature
from ddpm_lightning.run.words import CONF

TARGETS = sorted(
    {
        node["_target_"]
        for path in CONF.rglob("*.yaml")
        for _, node in nodes(yaml.safe_load(path.read_text()), "")
        if is_slow(node["_target_"])
    }
)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_is_what_is_imported(target: str) -> None:
    read, imported = signature(target), get_class(target)
    assert read.module == imported.__module__
    parameters = inspect.signature(imported).parameters
    hints = {n: str(p.annotation) for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert set(hints) <= set(read.hints)
    plain = {name for name, hint in hints.items() if "lightning." not in hint}
    found = {name: str(read.hints[name]()) for name in plain}
    assert found == {name: hints[name] for name in plain}


def test_keywords_that_are_handed_on_are_known() -> None:
    assert {"schedule", "network", "val_draws"} <= set(_hints("training.module.MedianDiffusion"))
    assert {"source", "path", "batch_size"} <= set(_hints("data.clips.source.SourceClips"))
    wandb = signature("lightning.pytorch.loggers.WandbLogger")
    assert not wandb.is_open
    assert wandb.hints["mode"]() == typing.Literal["online", "offline", "disabled", "shared"] | None


def _hints(name: str) -> dict[str, Any]:
    return signature(f"ddpm_lightning.{name}").hints


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.Traner",
        "lightning.nowhere.Trainer",
        "lightning.pytorch.seed_everything",
        "ddpm_lightning.training.module.os.system",
        "ddpm_lightning.training.module.torch",
    ],
)
def test_what_is_no_class_is_refused(target: str) -> None:
    with pytest.raises((ImportError, TypeError)):
        signature(target)
