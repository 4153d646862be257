"""What a class takes, by its constructor and those of its ancestors."""

import typing

import pytest

from ddpm_lightning.run.config.signatures import signature


def test_keywords_that_are_handed_on_are_known() -> None:
    median = signature("ddpm_lightning.training.module.MedianDiffusion")
    assert {"schedule", "network", "objective", "val_draws"} <= set(median.hints)
    assert not median.is_open
    wandb = signature("ddpm_lightning.training.loggers.WandbRun")
    assert {"settings", "project", "tags"} <= set(wandb.hints)
    assert not wandb.is_open
    assert wandb.hints["mode"] == typing.Literal["online", "offline", "disabled"] | None


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
    with pytest.raises(ImportError):
        signature(target)
