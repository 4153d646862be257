"""The training loss by how noisy its samples were, in validation's bins of log-SNR."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ddpm_lightning.evaluation.losses import bin_names, bin_of
from ddpm_lightning.training.callbacks.throughput import is_logging_step
from ddpm_lightning.training.module import DiffusionModule

_KEPT = "trained_by_log_snr"  # in a checkpoint: times and losses, (ranks, samples) each


class LossBins(pl.Callback):
    """Logs train_by_log_snr/BIN at the trainer's logging interval: the mean over all samples of the
    interval, on all devices, of the loss that is trained on. A bin without samples is left out, and
    so are losses that are not finite: their steps are skipped.

    Until then losses stay on the device, so that no step waits for them. They are kept in
    checkpoints, so that a resumed run logs the same.
    """

    def __init__(self) -> None:
        self._trained: list[tuple[Tensor, Tensor]] = []  # times and losses (B,) of each batch

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        parts = [torch.cat(part).to(pl_module.device) for part in zip(*self._trained, strict=True)]
        gathered = [trainer.strategy.all_gather(part) for part in parts]
        checkpoint[_KEPT] = [part.reshape(trainer.world_size, -1).cpu() for part in gathered]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        kept = checkpoint.get(_KEPT)
        if kept and len(kept[0]) == trainer.world_size:
            times, losses = (part[trainer.global_rank] for part in kept)
            self._trained = [(times, losses)]
        elif kept:  # there were more devices, or fewer: rank 0 has all, the others as many of none
            times, losses = (part.flatten() for part in kept)
            if not trainer.is_global_zero:
                losses = torch.full_like(losses, torch.nan)
            self._trained = [(times, losses)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = [(t, loss.to(pl_module.device)) for t, loss in self._trained]
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, DiffusionModule)
        self._trained.append(pl_module.trained[1:])
        stepped = trainer.global_step > self._last_step  # else gradients still accumulate
        self._last_step = trainer.global_step
        if stepped and is_logging_step(trainer, trainer.global_step):
            self._log(trainer, pl_module)
            self._trained = []

    def _log(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        times, losses = zip(*self._trained, strict=True)
        where = bin_of(pl_module.denoiser.process.log_snr(torch.cat(times)))
        loss = torch.cat(losses).float().to(where.device)
        is_finite = loss.isfinite()
        loss = loss.where(is_finite, 0.0)
        sums = torch.zeros(2, len(bin_names()))  # rows: count, loss
        sums.index_add_(1, where, torch.stack([is_finite.float(), loss]))
        whole = trainer.strategy.reduce(sums.to(pl_module.device), reduce_op="sum")
        assert isinstance(whole, Tensor)
        for name, count, total in zip(bin_names(), *whole.tolist(), strict=True):
            if count:
                pl_module.log(f"train_by_log_snr/{name}", total / count)
