"""What Lightning keeps to itself and a run needs, each private name in one place.

`tests/training/test_lightning_inside.py` sees each of them at work: a release that changes one
fails there.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop
from torch.optim import Optimizer


class FitLoop(_FitLoop):
    """The loop over epochs, also of a run that is resumed when all its steps are trained.

    It comes to the run's end again: with the validation that was due there, if it was cut short,
    and with what is made last, the final samples. Lightning's would leave such a run as it is.
    """

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "FitLoop":
        """Return one for the place of the one that a trainer has made."""
        made = trainer.fit_loop
        loop = cls(trainer, made.min_epochs, made.max_epochs)
        loop.epoch_loop = made.epoch_loop
        # Ranks agree on signals in Checkpoints; this one waits for the GPU in each step.
        loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        return loop

    @property
    def skip(self) -> bool:
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0

    @property
    def done(self) -> bool:
        return super().done and not self._owes_validation

    @property
    def _owes_validation(self) -> bool:
        was_cut_short = self.epoch_loop.val_loop.restarted_mid_evaluation
        return was_cut_short and validation_follows(self.trainer)


def _nothing() -> None:
    pass


def validation_follows(trainer: pl.Trainer) -> bool:
    """Return whether a validation follows this batch; valid in on_train_batch_end."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def is_between_steps(trainer: pl.Trainer) -> bool:
    """Return whether this batch ended an optimizer step, so that no gradients accumulate."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def count_steps(trainer: pl.Trainer) -> None:
    """Log the next step under its number, also where a validation was resumed before it.

    Lightning counts a step after the validation that follows it, and not at all where a run that
    was saved in between is resumed with another trainer.val_check_interval.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def reaches_loggers(module: pl.LightningModule) -> bool:
    """Return whether what this batch logs reaches loggers; without a trainer nothing does."""
    trainer = module._trainer
    return trainer is not None and trainer._logger_connector.should_update_logs


def metrics_of_batch(trainer: pl.Trainer) -> dict[str, float]:
    """Return what reaches the loggers at the end of this batch; valid in on_train_batch_end."""
    return {name: float(value) for name, value in trainer._logger_connector.metrics["log"].items()}


def forget_logged(trainer: pl.Trainer, group: str) -> None:
    """Drop the values of a group (group/name) that earlier steps have logged."""
    results: dict[str, Any] = trainer._results or {}
    for stale in [key for key in results if f".{group}/" in key]:
        del results[stale]


def leave_unscaling(optimizer: Optimizer) -> None:
    """Let Lightning unscale gradients (16-mixed) before it clips them.

    A fused optimizer would otherwise do so itself, afterwards.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
