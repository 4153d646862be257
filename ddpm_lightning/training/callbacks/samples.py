"""Draws sample grids from fixed noise as training goes on, and a film of the reverse process."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ddpm_lightning.plots.films import ReverseFilm, save_grid
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.samplers.walk import State
from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.loggers import log_gif
from ddpm_lightning.training.module import DiffusionModule

log = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal came while samples were drawn: the checkpoint cannot wait for them."""


class SampleGrid(pl.Callback):
    """Samples with the averaged weights, always from the same noise, so that grids can be compared.

    Rank 0 draws them, so that they are the same on any number of devices; the others wait.

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
        self._ranks: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        if trainer.world_size > 1:  # training's own group would give up after half an hour
            self._ranks = torch.distributed.new_group(timeout=timedelta(days=30), backend="gloo")

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

    def _draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str, film: str | None = None
    ) -> None:
        if trainer.is_global_zero:
            try:
                self._write(trainer, pl_module, name, film)
            except Interrupted:
                log.warning("%s.gif is not drawn: the run is asked to end", name)
        if self._ranks is not None:
            torch.distributed.barrier(self._ranks)

    def _write(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str, film: str | None
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, DiffusionModule)
        assert isinstance(data, StoreDataModule)
        denoiser, form = pl_module.inference_denoiser, data.format
        states = ReverseFilm()

        def step(state: State) -> None:
            checkpoints = trainer.checkpoint_callback
            if isinstance(checkpoints, Checkpoints) and checkpoints.is_asked_to_stop:
                raise Interrupted
            if film:
                states.record(state)

        was_training = denoiser.training
        denoiser.eval()
        try:
            clips = self.sampler.sample(
                denoiser,
                (self.num_samples, form.channels, form.num_frames, form.height, form.width),
                generator=per_sample_generators(self.seed, range(self.num_samples)),
                device=pl_module.device,
                callback=step,
            )
        finally:
            denoiser.train(was_training)
        self.directory.mkdir(parents=True, exist_ok=True)
        paths = {"samples": save_grid(clips, self.directory / f"{name}.gif", form.fps)}
        if film:
            paths["reverse_process"] = states.save(self.directory / f"{film}.gif", form.fps)
        for tag, path in paths.items():
            for logger in trainer.loggers:
                log_gif(logger, tag, path, trainer.global_step)
