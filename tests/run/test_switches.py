"""One switch for one thing: what users of Lightning, W&B and tqdm know works here, too."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest

from ddpm_lightning.files.checkpoints import by_step
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.training.callbacks.progress import RunProgress
from ddpm_lightning.training.loggers import WandbRun, mode_of_environment
from tests.commands import TINY, Call


@pytest.mark.parametrize("mode", ["disabled", "online", "offline", None])
def test_wandb_s_own_variables_hold_where_the_configuration_says_nothing(
    mode: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("WANDB_MODE", mode), ("WANDB_PROJECT", mode and "mine")):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    logger = WandbRun(save_dir=tmp_path, project=None)
    assert logger._wandb_init["mode"] == (mode or "offline")
    assert logger._wandb_init["project"] == ("mine" if mode else "ddpm_lightning")
    own = WandbRun(mode="offline", save_dir=tmp_path, project="own")
    assert (own._wandb_init["mode"], own._wandb_init["project"]) == ("offline", "own")


@pytest.mark.parametrize(
    ("disabled", "mode", "expected"),
    [
        ("true", None, "disabled"),
        ("1", "online", "disabled"),
        ("YES", None, "disabled"),
        ("false", None, "offline"),
        ("", "online", "online"),
    ],
)
def test_wandb_disabled_is_known(
    disabled: str | None, mode: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WANDB_DISABLED", disabled), ("WANDB_MODE", mode)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert mode_of_environment() == expected


def test_tqdm_s_own_variable_leaves_the_bar_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "1"):
        if value is not None:
            monkeypatch.setenv("TQDM_DISABLE", value)
        progress = RunProgress()
        trainer = pl.Trainer(
            max_steps=1, logger=False, callbacks=[progress], enable_checkpointing=False
        )
        monkeypatch.setattr(pl.Trainer, "estimated_stepping_batches", 1)
        progress.on_train_start(trainer, pl.LightningModule())
        assert progress._bar is not None
        assert progress._bar.disable == (value is not None)
        progress.teardown()


@pytest.mark.long
@pytest.mark.parametrize(
    ("interval", "validated", "saved"),
    [
        ("0.5", [0, 1, 2, 3], [4, 3]),  # of three batches an epoch: after each
        pytest.param("null", [2], [4, 3], marks=pytest.mark.long),
        pytest.param("3", [2], [4, 3], marks=pytest.mark.long),
        pytest.param("'00:00:00:00'", [0, 1, 2, 3], [4, 3], marks=pytest.mark.long),
    ],
)
def test_validation_by_share_number_or_time_saves_with_it(
    interval: str, validated: list[int], saved: list[int], call: Call, tmp_path: Path
) -> None:
    """Without a bar, by Lightning's own switch."""
    words = [f"trainer.val_check_interval={interval}", "+trainer.enable_progress_bar=false"]
    result = call("train", *TINY, "logger=csv", "run_dir=out", *words)
    assert result.code == 0, result.err
    assert "training" not in result.err
    out = tmp_path / "out"
    assert json.loads((out / "status.json").read_text())["status"] == "finished"
    assert read_metrics(out / "metrics.csv")["val/error"][0] == validated
    names = [f"step_{step:08d}.ckpt" for step in saved]
    assert [path.name for path in by_step(out / "checkpoints")] == names
