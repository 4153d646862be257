"""Measures training: clips per second, the share of time spent waiting for data, the gradient's
norm.
"""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer

from ddpm_lightning.data.dataset import Batch


class Throughput(pl.Callback):
    """Logs at the trainer's logging interval.

    Time spent on validation, samples and checkpoints is not counted. Under several devices the rate
    is that of all of them.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._clips = 0
        self._step_seconds = 0.0
        self._waited_before: float | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._waited_before is None:
            self._waited_before = waited(trainer)
        self._start = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if is_logging_step(trainer, trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._step_seconds += time.perf_counter() - self._start
        self._clips += len(batch.clip) * trainer.world_size
        if self._waited_before is None or not is_logging_step(trainer, trainer.global_step):
            return
        wait = waited(trainer) - self._waited_before
        seconds = self._step_seconds + wait
        pl_module.log("train/clips_per_s", self._clips / seconds, prog_bar=True)
        pl_module.log("train/data_wait", wait / seconds, prog_bar=True)
        self._reset()


def is_logging_step(trainer: pl.Trainer, step: int) -> bool:
    """Whether metrics of this optimizer step reach the loggers."""
    return step % int(trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]


def waited(trainer: pl.Trainer) -> float:
    """Seconds that this process has waited for training batches so far."""
    loader = trainer.train_dataloader
    return float(loader.wait_seconds) if loader is not None else 0.0
