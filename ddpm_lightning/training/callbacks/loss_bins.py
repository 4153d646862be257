"""The training loss by how noisy its samples were, in validation's bins of log-SNR."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ddpm_lightning.evaluation.losses import bin_names, bin_of
from ddpm_lightning.training.callbacks.throughput import is_logging_step
from ddpm_lightning.training.module import DiffusionModule


class LossBins(pl.Callback):
    """Logs train_by_log_snr/BIN at the trainer's logging interval: the mean over all samples of the
    interval, on all devices, of the loss that is trained on. A bin without samples is left out.

    Sums stay on the device until then, so that no step waits for them. They are kept in checkpoints
    (of several devices, those of rank 0), so that a resumed run logs the same.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(2, len(bin_names()))  # rows: count, loss

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums = state_dict["sums"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sums = self._sums.to(pl_module.device)
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        _, t, loss = pl_module.trained
        where = bin_of(pl_module.denoiser.process.log_snr(t)).to(loss.device, non_blocking=True)
        self._sums.index_add_(1, where, torch.stack([torch.ones_like(loss), loss]).float())
        stepped = trainer.global_step > self._last_step  # else gradients still accumulate
        self._last_step = trainer.global_step
        if stepped and is_logging_step(trainer, trainer.global_step):
            sums = trainer.strategy.reduce(self._sums, reduce_op="sum")
            assert isinstance(sums, Tensor)
            for name, count, total in zip(bin_names(), *sums.tolist(), strict=True):
                if count:
                    pl_module.log(f"train_by_log_snr/{name}", total / count)
            self._sums.zero_()
