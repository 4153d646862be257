"""The curve of log-SNR that a run trains along, for the run directory and the dashboards."""

import textwrap
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.plots.schedules import save_log_snr
from ddpm_lightning.processes.report import describe
from ddpm_lightning.training.datamodule import clips_of
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.loggers import log_picture
from ddpm_lightning.training.module import DiffusionModule


class ScheduleCurve(pl.Callback):
    """Plots the schedule once, not before the first step: matplotlib takes a second to load.

    Args:
        path: of the picture, log_snr.png.
        after_step: of the run; or at its end.
    """

    def __init__(self, path: str, after_step: int = 50) -> None:
        self.after_step = after_step
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == self.after_step and is_between_steps(trainer):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.path.exists():
            self._draw(trainer, pl_module)

    @pl.utilities.rank_zero_only
    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        process = pl_module.denoiser.process
        shape = (1, *clips_of(trainer).format.shape)
        report = describe(process, shape)
        lines = [str(report), *report.warnings]
        title = "\n".join(textwrap.fill(line, 60) for line in lines)
        save_log_snr({title: {type(process).__name__: process}}, log_snr_floor(shape), self.path)
        log_picture(trainer, "log_snr", self.path)
