"""Lets clips that are still being ingested join the training set, at the ends of epochs."""

import lightning.pytorch as pl

from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.training.datamodule import StoreDataModule


class Growth(pl.Callback):
    """A new pass begins whenever the data module has taken in new clips."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data, loader = trainer.datamodule, trainer.train_dataloader  # type: ignore[attr-defined]
        assert isinstance(data, StoreDataModule)
        assert isinstance(loader, ClipLoader)
        if data.grow():
            loader.dataset = data.train_set
            loader.renew(data.train_set.shards())
