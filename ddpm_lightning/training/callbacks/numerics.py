"""Keeps a non-finite loss or gradient out of the weights, and ends a run that gets no others."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ddpm_lightning.training.module import DiffusionModule, Trained


class NonFinite(RuntimeError):  # noqa: N818 - one more way for a run to fail
    """Too many steps in a row were skipped, or weights are not finite; str() says where to look."""


def refuse_non_finite(weights: Iterable[Tensor], step: int) -> None:
    """Raise NonFinite unless all weights are finite: one reduction, and a wait for the device."""
    if not get_total_norm([w for w in weights if w.numel()], torch.inf).isfinite():
        raise NonFinite(
            f"weights not finite after step {step}, saved weights are from before; lower the rate"
        )


class NumericsGuard(pl.Callback):
    """Skips optimizer steps whose gradient is not finite: weights and optimizer stay as they were.

    A loss that is not finite is given such a gradient by DiffusionModule. With several devices all
    of them skip: gradients have been averaged. Half precision (16-mixed) is left to its scaler,
    which does the same.

    Where the optimizer can (AdamW with fused=True), a GPU skips by itself, and nobody waits for it:
    whether it did is read a step later.

    Args:
        path: of a file with a line for each skipped step: its samples, log-SNR and losses, which
            may be NaN or Infinity.
        max_in_a_row: skipped steps that end the run.
    """

    def __init__(self, path: str, max_in_a_row: PositiveInt = 10) -> None:
        self.max_in_a_row = max_in_a_row
        self.path = Path(path)
        self._num_skipped = self._in_a_row = 0
        self._trained: list[Trained] = []  # since the last optimizer step
        self._unread: _Step | None = None

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {"num_skipped": self._num_skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._num_skipped, self._in_a_row = state_dict["num_skipped"], state_dict["in_a_row"]

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self._trained.append(pl_module.trained)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self._read()
        trained, self._trained = self._trained, []
        if trainer.scaler is None:
            skips = pl_module.gradient_norm().isfinite().logical_not()
            sent = skips.to("cpu", non_blocking=True)  # which is pinned
            event = (
                torch.cuda.current_stream(skips.device).record_event() if skips.is_cuda else None
            )
            step = _Step(trainer.global_step, trainer.global_rank, trained, sent, event)
            if self.is_late(pl_module, optimizer):
                self._unread = step
                optimizer.found_inf = skips.float()  # type: ignore[attr-defined]
            elif self._judge(step):
                for parameter in pl_module.parameters():
                    parameter.grad = None  # which optimizers pass over
        if self._num_skipped:
            pl_module.log("train/skipped_steps", float(self._num_skipped))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read()

    def is_late(self, module: pl.LightningModule, optimizer: Optimizer) -> bool:
        """Return whether the device skips by itself."""
        return module.device.type == "cuda" and bool(optimizer.defaults.get("fused"))

    def _read(self) -> None:
        step, self._unread = self._unread, None
        if step is not None:
            self._judge(step)

    def _judge(self, step: "_Step") -> bool:
        """Count and write a step if it was skipped, and return whether it was."""
        if step.event is not None:
            step.event.synchronize()
        if not step.skips:
            self._in_a_row = 0
            return False
        self._num_skipped += 1
        self._in_a_row += 1
        self._write(step)
        if self._in_a_row == self.max_in_a_row:
            first = step.number - self._in_a_row + 1
            raise NonFinite(
                f"the loss or its gradient was not finite in {self._in_a_row} steps in a row, from "
                f"step {first} on; {self.path} tells their samples, saved weights are from before"
            )
        return True

    def _write(self, step: "_Step") -> None:
        samples = [
            {"number": number, "clip": clip, "log_snr": log_snr, "loss": loss}
            for part in step.trained
            for number, clip, log_snr, loss in zip(
                part.batch.number,
                part.batch.index.tolist(),
                part.log_snr.tolist(),
                part.loss.tolist(),
                strict=True,
            )
        ]
        row = {"step": step.number, "rank": step.rank, "samples": samples}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class _Step(NamedTuple):
    """An optimizer step; skips can be read after the event."""

    number: int
    rank: int
    trained: list[Trained]
    skips: Tensor
    event: torch.cuda.Event | None
