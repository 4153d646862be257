"""Exponential moving average of the denoiser's weights, kept beside the raw ones.

The averaged copy is a submodule of its own (`ema_denoiser`), so every checkpoint holds both; raw
weights are never swapped out, and resuming continues from them.
"""

import copy
from typing import Any

import lightning.pytorch as pl
import torch

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.training.module import DiffusionModule


class EMA(pl.Callback):
    """Averages after every optimizer step.

    Args:
        decay: share of the average that a step keeps; in the first steps (1 + n) / (10 + n) if that
        is less.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}; 0.999 suits long runs")
        self.decay = decay
        self._last_step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        raw = pl_module.denoiser
        if stage == "fit" and pl_module.ema_denoiser is None:
            pl_module.ema_denoiser = Denoiser(
                copy.deepcopy(raw.network), raw.process, raw.objective, raw.data_std
            ).requires_grad_(False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == self._last_step:  # gradients still accumulate
            return
        self._last_step = trainer.global_step
        assert isinstance(pl_module, DiffusionModule)
        assert pl_module.ema_denoiser is not None
        self.update(pl_module.ema_denoiser, pl_module.denoiser, trainer.global_step)

    @torch.no_grad()
    def update(self, average: Denoiser, raw: Denoiser, step: int) -> None:
        """Moves the average towards the raw parameters after step = 1, 2, ..; copies buffers."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(raw.parameters()), 1 - decay)
        for kept, new in zip(average.buffers(), raw.buffers(), strict=True):
            kept.copy_(new)
