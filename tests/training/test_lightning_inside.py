"""What Lightning keeps to itself does what its names say: an upgrade that changes it fails here."""

import inspect
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from ddpm_lightning.training import lightning_inside as inside

NUM_BATCHES = 6  # in two optimizer steps of two batches, and a validation after each, an epoch


class Line(pl.LightningModule):
    """A weight that learns to be zero, and logs it in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        self.log("loss", self.weight.detach().sum())
        self.log(f"group/{number}", float(number))
        return self.weight.square().sum()

    def validation_step(self, batch: Tensor, number: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Table(Logger):
    """Keeps what it is given."""

    name, version = "table", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **more: Any) -> None:
        pass


class Watch(pl.Callback):
    """What each function says in each batch, and which events follow it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.said: list[tuple[bool, bool, bool, dict[str, float]]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        inside.count_steps(trainer)
        inside.forget_logged(trainer, "group")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self.events.append(f"batch, {trainer.global_step}")
        self.said.append(
            (
                inside.validation_follows(trainer),
                inside.is_between_steps(trainer),
                inside.reaches_loggers(pl_module),
                inside.metrics_of_batch(trainer),
            )
        )

    def on_validation_start(self, *args: Any) -> None:
        self.events.append("validation")


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[Watch, Table]:
    watch, table = Watch(), Table()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        val_check_interval=4,
        log_every_n_steps=2,
        num_sanity_val_steps=0,
        logger=table,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit_loop = inside.FitLoop.of(trainer)
    batches: Any = torch.zeros(NUM_BATCHES, 1)
    train, validate = (DataLoader(b, batch_size=None) for b in (batches, batches[:1]))
    trainer.fit(Line(), train, validate)
    return watch, table


def test_each_function_says_what_happens(fitted: tuple[Watch, Table]) -> None:
    watch, table = fitted
    assert watch.events == [
        *("batch, 0", "batch, 1", "batch, 1", "batch, 2", "validation", "batch, 2", "batch, 3"),
    ]
    follows, between, logs, metrics = zip(*watch.said, strict=True)
    assert follows == (False, False, False, True, False, False)
    assert between == (False, True) * 3
    assert logs == (False, False, True, True, False, False)  # of the second step's two batches
    ((step, row),) = [row for row in table.rows if "loss" in row[1]]
    assert step == 1
    assert row == {**metrics[3], "epoch": 0}
    assert [name for name in row if name.startswith("group/")] == ["group/3"]  # its last batch's


def test_nothing_is_logged_without_a_trainer() -> None:
    assert not inside.reaches_loggers(Line())


def test_no_step_waits_for_signals_of_other_ranks() -> None:
    trainer = pl.Trainer(max_steps=0, logger=False, enable_checkpointing=False)
    assert "distributed" in inspect.getsource(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
    loop = inside.FitLoop.of(trainer)
    assert loop.epoch_loop is trainer.fit_loop.epoch_loop
    assert loop.epoch_loop._broadcast_sigterm_tensor is inside._nothing


def test_a_fused_optimizer_leaves_unscaling_to_lightning() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], fused=True)
    assert _optimizer_handles_unscaling(optimizer)
    inside.leave_unscaling(optimizer)
    assert not _optimizer_handles_unscaling(optimizer)
