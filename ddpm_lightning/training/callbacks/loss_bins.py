"""The training loss by how noisy its samples were, in validation's bins of log-SNR."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ddpm_lightning.evaluation.losses import bin_names, bin_of
from ddpm_lightning.training.callbacks.throughput import is_logging_step
from ddpm_lightning.training.lightning_inside import forget_logged, is_between_steps
from ddpm_lightning.training.module import DiffusionModule

_GROUP = "train_by_log_snr"
_KEPT = "trained_by_log_snr"  # in a checkpoint: log-SNRs and losses, (ranks, samples) each


class LossBins(pl.Callback):
    """Logs train_by_log_snr/BIN at the trainer's logging interval.

    It is the mean of the loss over all samples of the interval, on all devices, or over all frames
    that count where each has its own level. A bin without samples is left out, and so are losses
    that are not finite: their steps are skipped.

    Until then losses stay on the device, so that no step waits for them. They are kept in
    checkpoints, so that a resumed run logs the same.
    """

    def __init__(self) -> None:
        # log-SNRs and losses (B,), or (B F,), of each batch
        self._trained: list[tuple[Tensor, Tensor]] = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = [torch.cat(values) for values in zip(*self._trained, strict=True)]
        of_all = [trainer.strategy.all_gather(values.to(pl_module.device)) for values in own]
        checkpoint[_KEPT] = [values.reshape(trainer.world_size, -1).cpu() for values in of_all]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if kept := checkpoint.get(_KEPT):  # perhaps of more devices, or fewer: each takes as many
            own = slice(trainer.global_rank, None, trainer.world_size)
            log_snr, losses = (values.T.flatten()[own] for values in kept)
            count = kept[0].numel() // trainer.world_size
            self._trained = [(log_snr[:count], losses[:count])]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = [(level, loss.to(pl_module.device)) for level, loss in self._trained]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, DiffusionModule)
        trained = pl_module.trained
        self._trained.append((trained.log_snr.float().flatten(), trained.loss.flatten()))
        if is_between_steps(trainer) and is_logging_step(trainer, trainer.global_step):
            self._log(trainer, pl_module)
            self._trained = []

    def _log(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        log_snr, losses = zip(*self._trained, strict=True)
        where = bin_of(torch.cat(log_snr))
        loss = torch.cat(losses).float().to(where.device)
        is_finite = loss.isfinite()
        loss = loss.where(is_finite, 0.0)
        sums = torch.zeros(2, len(bin_names()))  # rows: count, loss
        sums.index_add_(1, where, torch.stack([is_finite.float(), loss]))
        total_sums = trainer.strategy.reduce(sums.to(pl_module.device), reduce_op="sum")
        assert isinstance(total_sums, Tensor)
        forget_logged(trainer, _GROUP)
        for name, count, loss_sum in zip(bin_names(), *total_sums.tolist(), strict=True):
            if count:
                pl_module.log(f"{_GROUP}/{name}", loss_sum / count)
