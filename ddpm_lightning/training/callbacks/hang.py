"""Ends a run one of whose ranks hangs in a training step."""

import faulthandler
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import lightning.pytorch as pl
from pydantic import PositiveFloat

from ddpm_lightning.training.process_group import PATIENCE, fence, is_distributed, limit

_FREE_BATCHES = 3  # the first of a process, which compile


class HangGuard(pl.Callback):
    """Lets ranks begin each batch together, and wait within it no longer than a limit.

    A rank that hangs is lost to the others by then. Shortly before, each writes where it is in its
    code to train.log. This precedes the callbacks that draw, validate or save.

    Args:
        seconds: that a rank waits for the others within a batch; None: as long as elsewhere.
    """

    def __init__(self, seconds: PositiveFloat | None = 60) -> None:
        self.seconds = seconds
        self._num_batches = 0
        self._log: TextIO | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_distributed() and self.seconds is not None:
            self._log = Path(trainer.default_root_dir, "train.log").open("a")  # noqa: SIM115

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        fence()
        self._num_batches += 1
        if self._log is not None and self._num_batches > _FREE_BATCHES:
            assert self.seconds is not None
            limit(timedelta(seconds=self.seconds))
            faulthandler.dump_traceback_later(0.9 * self.seconds, file=self._log)

    def on_train_batch_end(self, *args: Any) -> None:
        faulthandler.cancel_dump_traceback_later()
        if is_distributed():  # what follows one rank may do alone
            limit(PATIENCE)

    def on_validation_start(self, *args: Any) -> None:
        fence()

    def on_save_checkpoint(self, *args: Any) -> None:
        fence()

    def on_train_end(self, *args: Any) -> None:
        fence()
        self._close()

    def on_exception(self, *args: Any) -> None:
        self._close()

    def _close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._log is not None:
            self._log.close()
            self._log = None
