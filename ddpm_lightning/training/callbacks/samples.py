"""Draws sample grids from fixed noise as training goes on, and a film of the reverse process."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ddpm_lightning.plots.films import ReverseFilm, save_grid
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.loggers import log_picture
from ddpm_lightning.training.module import DiffusionModule


class SampleGrid(pl.Callback):
    """Samples with the averaged weights, always from the same noise, so that grids can be compared.

    Args:
        sampler: walks from noise to clips.
        num_samples: clips of a grid.
        first_step: after which the first grid is drawn.
        every_n_steps: at whose multiples the others are.
        seed: of the noise.
        directory: where step_*.gif, final.gif and reverse.gif are written.
    """

    def __init__(
        self,
        sampler: Sampler,
        num_samples: int,
        first_step: int,
        every_n_steps: int,
        seed: int,
        directory: str,
    ) -> None:
        if num_samples < 1 or every_n_steps < 1:
            raise ValueError(
                "num_samples and every_n_steps must be at least 1, "
                f"got {num_samples} and {every_n_steps}; drop ~callbacks.samples to draw none"
            )
        self.sampler = sampler
        self.num_samples = num_samples
        self.first_step, self.every_n_steps = first_step, every_n_steps
        self.seed = seed
        self.directory = Path(directory)
        self._last_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        step = trainer.global_step
        due = step == self.first_step or step % self.every_n_steps == 0
        if due and step != self._last_step:  # once, also while gradients accumulate
            self._draw(trainer, pl_module, f"step_{step:06d}")
        self._last_step = step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module, "final", film="reverse")

    @pl.utilities.rank_zero_only
    def _draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str, film: str | None = None
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, DiffusionModule)
        assert isinstance(data, StoreDataModule)
        denoiser, form = pl_module.inference_denoiser, data.format
        states = ReverseFilm()
        was_training = denoiser.training
        denoiser.eval()
        clips = self.sampler.sample(
            denoiser,
            (self.num_samples, form.channels, form.num_frames, form.height, form.width),
            generator=per_sample_generators(self.seed, range(self.num_samples)),
            device=pl_module.device,
            callback=states.record if film else None,
        )
        denoiser.train(was_training)
        self.directory.mkdir(parents=True, exist_ok=True)
        paths = {"samples": save_grid(clips, self.directory / f"{name}.gif", form.fps)}
        if film:
            paths["reverse_process"] = states.save(self.directory / f"{film}.gif", form.fps)
        for tag, path in paths.items():
            for logger in trainer.loggers:
                log_picture(logger, tag, path, trainer.global_step)
