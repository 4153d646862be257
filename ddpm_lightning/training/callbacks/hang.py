"""Marks where training steps begin and end: a hang in one is not a pause between them."""

import math
from typing import Any

import lightning.pytorch as pl
from pydantic import PositiveFloat
from torch import Tensor

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.training.steps import BACKWARD, UPDATE, Steps


class HangGuard(pl.Callback):
    """Marks the parts of a training step, by which ranks notice a hang (training.watch).

    It precedes the callbacks that draw, validate or save when a batch ends, which is no part of the
    step.

    Args:
        seconds: that all ranks may be within a step, at least; ten times the longest one of late is
            allowed as well. None: for ever.
    """

    def __init__(self, seconds: PositiveFloat | None = 45) -> None:
        self.steps = Steps(math.inf if seconds is None else seconds)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.steps.begin(trainer.global_step)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self.steps.part = BACKWARD

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.part = UPDATE

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.steps.end()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.steps.end()
