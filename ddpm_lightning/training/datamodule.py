"""Lightning's data module around the data of a run, which needs no Lightning itself."""

from typing import Any

import lightning.pytorch as pl

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.data.loader import ClipLoader


class ClipDataModule(pl.LightningDataModule):
    """Gives the trainer the loaders of its rank, and puts the data's state into checkpoints."""

    def __init__(self, data: ClipData) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        self.data.load(self._rank()[1])

    def train_dataloader(self) -> ClipLoader:
        trainer = self.trainer
        assert trainer is not None
        return self.data.train_loader(
            *self._rank(),
            accumulate=trainer.accumulate_grad_batches,
            overfit=bool(trainer.overfit_batches),  # type: ignore[attr-defined]
        )

    def val_dataloader(self) -> ClipLoader:
        return self.data.val_loader(*self._rank())

    def state_dict(self) -> dict[str, Any]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.data.load_state_dict(state_dict)

    def teardown(self, stage: str) -> None:
        self.data.close()

    def _rank(self) -> tuple[int, int]:
        """Return this process's rank, and how many train together."""
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


def clips_of(trainer: pl.Trainer) -> ClipData:
    """Return the data that a trainer trains on."""
    module = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, ClipDataModule)
    return module.data
