"""Draws sample grids from fixed noise as training goes on, a film of the reverse process, and what
other samplers make of the same noise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from pydantic import PositiveInt
from torch import Tensor

from ddpm_lightning.plots.films import ReverseFilm, save_grid
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.samplers.walk import State
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
        directory: where step_*.gif, final.gif, reverse.gif and compare_*.gif are written.
        compare: further samplers by name, drawn at the end of the run.
        compare_every_n_steps: at whose multiples they are drawn as well; null for never.
    """

    def __init__(
        self,
        sampler: Sampler,
        num_samples: PositiveInt,
        first_step: int,
        every_n_steps: PositiveInt,
        seed: int,
        directory: str,
        compare: dict[str, Sampler],
        compare_every_n_steps: PositiveInt | None,
    ) -> None:
        self.sampler = sampler
        self.num_samples = num_samples
        self.first_step, self.every_n_steps = first_step, every_n_steps
        self.seed = seed
        self.directory = Path(directory)
        self.compare, self.compare_every_n_steps = compare, compare_every_n_steps
        self._last_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        step = trainer.global_step
        due = step == self.first_step or step % self.every_n_steps == 0
        is_new = step != self._last_step  # not while gradients accumulate
        if due and is_new:
            self._draw(trainer, pl_module, f"step_{step:06d}")
        every = self.compare_every_n_steps
        if every is not None and step % every == 0 and is_new and step != trainer.max_steps:
            self._draw_others(trainer, pl_module)
        self._last_step = step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module, "final", film="reverse")
        self._draw_others(trainer, pl_module)

    @pl.utilities.rank_zero_only
    def _draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str, film: str | None = None
    ) -> None:
        states = ReverseFilm()
        clips = self._sample(trainer, pl_module, self.sampler, states.record if film else None)
        self._show(trainer, "samples", save_grid(clips, *self._place(trainer, name)))
        if film:
            self._show(trainer, "reverse_process", states.save(*self._place(trainer, film)))

    @pl.utilities.rank_zero_only
    def _draw_others(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, sampler in self.compare.items():
            clips = self._sample(trainer, pl_module, sampler)
            path = save_grid(clips, *self._place(trainer, f"compare_{name}"))
            self._show(trainer, f"compare/{name}_{sampler.num_calls}_calls", path)

    def _sample(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        sampler: Sampler,
        callback: Callable[[State], None] | None = None,
    ) -> Tensor:
        assert isinstance(pl_module, DiffusionModule)
        denoiser, form = pl_module.inference_denoiser, _data(trainer).format
        was_training = denoiser.training
        denoiser.eval()
        clips = sampler.sample(
            denoiser,
            (self.num_samples, form.channels, form.num_frames, form.height, form.width),
            generator=per_sample_generators(self.seed, range(self.num_samples)),
            device=pl_module.device,
            callback=callback,
        )
        denoiser.train(was_training)
        return clips

    def _place(self, trainer: pl.Trainer, name: str) -> tuple[Path, float]:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / f"{name}.gif", _data(trainer).format.fps

    def _show(self, trainer: pl.Trainer, tag: str, path: Path) -> None:
        for logger in trainer.loggers:
            log_picture(logger, tag, path, trainer.global_step)


def _data(trainer: pl.Trainer) -> StoreDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, StoreDataModule)
    return data
