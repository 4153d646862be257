"""Lightning's loop over epochs, for runs that are resumed when all their steps are trained."""

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop


class FitLoop(_FitLoop):
    """Comes to the run's end again: with the validation that was due there, if it was cut short,
    and with what is made last, the final samples. Lightning's would leave such a run as it is.
    """

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "FitLoop":
        """In the place of the one that a trainer has made."""
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
        assert self._data_fetcher is not None
        was_cut_short = self.epoch_loop.val_loop.restarted_mid_evaluation
        return was_cut_short and self.epoch_loop._should_check_val_fx(self._data_fetcher)


def _nothing() -> None:
    pass
