"""Saves what a run needs to be resumed, and stops it at a signal.

A checkpoint is taken between two optimizer steps: after the validation that is due there, if any.
"""

import math
import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from pydantic import PositiveFloat, PositiveInt

from ddpm_lightning.files import checkpoints as files
from ddpm_lightning.training.callbacks.numerics import refuse_non_finite
from ddpm_lightning.training.callbacks.throughput import is_logging_step
from ddpm_lightning.training.lightning_inside import (
    count_steps,
    is_between_steps,
    metrics_of_batch,
    validation_follows,
)
from ddpm_lightning.training.loggers import log_once
from ddpm_lightning.training.process_group import any_rank, is_distributed
from ddpm_lightning.training.signals import SignalWatch, Stopped

_UNLOGGED = "unlogged"  # in a checkpoint: metrics of its step that loggers have not had yet


class Checkpoints(Checkpoint):
    """Saves step_*.ckpt, of which the newest few stay; last.ckpt, the newest; best.ckpt.

    Args:
        directory: for them.
        every_n_steps: of the optimizer; null for after each validation.
        every_n_minutes: as well; null for never.
        keep: how many of the newest stay; with two, one can be damaged.
        monitor: the logged value that is least at the best.
    """

    def __init__(
        self,
        directory: str,
        every_n_steps: PositiveInt | None = None,
        every_n_minutes: PositiveFloat | None = 30,
        keep: PositiveInt = 2,
        monitor: str = "val/error",
    ) -> None:
        self.directory = Path(directory)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        self.monitor = monitor
        self._best = math.inf
        self._best_step: int | None = None
        self._is_due = self._is_stopping = self._owes_validation = False
        self._unlogged: dict[str, float] = {}
        self._watch = SignalWatch()

    @property
    def is_asked_to_stop(self) -> bool:
        """Return whether this rank has received a signal."""
        return self._watch.received is not None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_step": self._best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._best_step = state_dict["best"], state_dict.get("best_step")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best, start = self.directory / files.BEST, trainer.ckpt_path
        is_kept = trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if start and is_kept and self._best_step == trainer.global_step:
            files.link(Path(start), best)  # the process that saved it may have died before
        if not best.exists():  # this run is a fork
            self._best = math.inf
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if self._unlogged and trainer.is_global_zero:
            log_once(trainer.loggers, self._unlogged, trainer.global_step - 1)
        self._unlogged = {}
        self._watch.install()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if not is_between_steps(trainer):
            return
        step = trainer.global_step
        minutes = (time.monotonic() - self._saved_at) / 60
        is_late = minutes >= (self.every_n_minutes or math.inf)
        self._is_stopping, is_late = any_rank(self.is_asked_to_stop, is_late)
        is_regular = (every := self.every_n_steps) is not None and step % every == 0
        self._is_due = is_late or self._is_stopping or is_regular or step == trainer.max_steps
        if not self._is_due:
            return
        self._owes_validation = validation_follows(trainer)
        if self._is_stopping or not self._owes_validation:
            # Lightning logs after this: a process that dies in between has lost its metrics.
            if is_logging_step(trainer, step):
                self._unlogged = {**metrics_of_batch(trainer), "epoch": trainer.current_epoch}
            self._save(trainer)
            self._unlogged = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._stop_if_asked()  # only here has the step before been logged
        count_steps(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked()
        self._owes_validation = not trainer.sanity_checking

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.sanity_checking:
            return
        self._is_stopping, _ = any_rank(self.is_asked_to_stop, False)
        if self._is_stopping:
            self._save(trainer)
            self._stop_if_asked()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._owes_validation = False
        score = float(trainer.callback_metrics.get(self.monitor, math.inf))
        is_best = bool(trainer.strategy.broadcast(score < self._best))
        if is_best:
            self._best, self._best_step = score, trainer.global_step
        if self._is_due or is_best or (self.every_n_steps is None and is_between_steps(trainer)):
            self._save(trainer, is_best)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved_step != trainer.global_step:  # the run ended by its number of epochs
            self._save(trainer)
        self._is_stopping, _ = any_rank(self.is_asked_to_stop, False)
        self._watch.restore()
        self._stop_if_asked()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if not is_distributed():  # else a rank that has failed gets SIGTERM, and is ending already
            self._watch.restore()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[_UNLOGGED] = self._unlogged
        loops = checkpoint["loops"]["fit_loop"]
        progress, trained = (loops[f"epoch_loop.{of}batch_progress"] for of in ("val_loop.", ""))
        total = progress["total"]
        if self._owes_validation:  # Lightning does it again from its start, if that has begun
            total |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
            # Resuming in a batch's end counts it twice, and an epoch's last batch ends the epoch.
            for of in ("total", "current"):
                trained[of]["completed"] = trained[of]["processed"]
        else:  # one that was repeated is complete, too
            total |= dict.fromkeys(("ready", "started", "processed"), total["completed"])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._unlogged = checkpoint.get(_UNLOGGED, {})

    def _save(self, trainer: pl.Trainer, is_best: bool = False) -> None:
        self._is_due = False
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last = self.directory / files.LAST
        refuse_non_finite(trainer.lightning_module.parameters(), trainer.global_step)
        trainer.save_checkpoint(last, weights_only=False)
        if trainer.is_global_zero:
            files.link(last, last.with_name(files.STEP.format(trainer.global_step)))
            if is_best:
                files.link(last, last.with_name(files.BEST))
            for old in files.by_step(self.directory)[self.keep :]:
                old.unlink(missing_ok=True)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def _stop_if_asked(self) -> None:
        if self._is_stopping:
            raise Stopped(self._watch.received or signal.SIGTERM)
