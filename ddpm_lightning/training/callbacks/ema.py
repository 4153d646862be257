"""Averages of the denoiser's weights, kept beside the raw ones.

The first is a submodule of its own (`ema_denoiser`), which validates, samples and chooses the best;
the others are only kept, in the checkpoint too. Raw weights are never swapped out.
"""

import copy
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm_lightning.averages import Decay, PowerDecay
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files import checkpoints
from ddpm_lightning.training.callbacks.numerics import refuse_non_finite
from ddpm_lightning.training.callbacks.throughput import is_logging_step
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.module import DiffusionModule


class EMA(pl.Callback):
    """Averages weights after every optimizer step, and logs how far the first is from the raw ones.

    Args:
        averages: how much each keeps at a step, by name; the first is the one used, weights=ema.
        directory: for snapshots.
        snapshot_every_n_steps: when those under a power law are also written, so that others can be
            rebuilt from them; null for never.
    """

    def __init__(
        self,
        averages: Annotated[dict[str, Decay], Field(min_length=1)],
        directory: str,
        snapshot_every_n_steps: PositiveInt | None = None,
    ) -> None:
        for i, name in enumerate(averages):
            if not name.isidentifier() or name == "raw" or (name == "ema" and i):
                others = "weights=raw, weights=ema (the first one) and numbers mean others"
                raise ValueError(f"an average cannot be called {name}: {others}; choose a word")
        self.averages = averages
        self.directory = Path(directory)
        self.snapshot_every_n_steps = snapshot_every_n_steps
        self._others: dict[str, dict[str, Tensor]] = {}  # weights by name, but for the first's
        self._num_updates = 0
        # Found once, they stay.
        self._pairs: list[tuple[Decay, list[Tensor], list[Tensor]]] = []
        self._buffers: tuple[list[Tensor], list[Tensor]] = [], []  # the average's and the raw ones

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self._num_updates, "others": self._others}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._num_updates, self._others = state_dict["num_updates"], state_dict["others"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        raw = pl_module.denoiser
        if stage == "fit" and pl_module.ema_denoiser is None:
            pl_module.ema_denoiser = Denoiser(
                copy.deepcopy(raw.network),
                raw.process,
                raw.objective,
                raw.statistics,
                copy.deepcopy(raw.conditions.members),
                raw.conditions.dropout,
            ).requires_grad_(False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        pl_module.has_average = self._num_updates > 0
        raw = floats(pl_module.denoiser)
        for name in list(self.averages)[1:]:
            kept = self._others.get(name, raw)
            self._others[name] = {k: kept[k].detach().clone().to(raw[k]) for k in raw}
        self._pairs = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if not is_between_steps(trainer):
            return
        step = trainer.global_step
        assert isinstance(pl_module, DiffusionModule)
        assert pl_module.ema_denoiser is not None
        self.update(pl_module.ema_denoiser, pl_module.denoiser, step)
        pl_module.has_average = True
        if is_logging_step(trainer, step):
            _, averaged, weights = self._pairs[0]
            pl_module.log("train/ema_distance", distance(averaged, weights))
        every = self.snapshot_every_n_steps
        if every is not None and (step % every == 0 or step == trainer.max_steps):
            self._write_snapshot(trainer, pl_module.ema_denoiser, step)

    @torch.no_grad()
    def update(self, average: Denoiser, raw: Denoiser, step: int) -> None:
        """Move all averages towards the raw weights after step = 1, 2, .."""
        self._num_updates += 1
        if not self._pairs:
            kept, new = floats(average), floats(raw)
            for name, decay in self.averages.items():
                own = self._others.get(name, kept)
                self._pairs.append((decay, list(own.values()), [new[k] for k in own]))
            self._buffers = list(average.buffers()), list(raw.buffers())
        for decay, averaged, weights in self._pairs:
            get_ema_multi_avg_fn(decay.at(step))(averaged, weights, self._num_updates)
        for averaged_buffer, buffer in zip(*self._buffers, strict=True):
            averaged_buffer.copy_(buffer)

    @pl.utilities.rank_zero_only
    def _write_snapshot(self, trainer: pl.Trainer, average: Denoiser, step: int) -> None:
        windows = {name: d.gamma for name, d in self.averages.items() if isinstance(d, PowerDecay)}
        first = next(iter(self.averages))
        weights = {first: floats(average)} | self._others
        averages = {n: {"gamma": g, "weights": weights[n]} for n, g in windows.items()}
        refuse_non_finite(floats(average).values(), step)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / checkpoints.STEP.format(step)
        checkpoints.write({"step": step, "averages": averages}, path)


@torch.no_grad()
def distance(averaged: list[Tensor], raw: list[Tensor]) -> Tensor:
    """Return |averaged - raw| / |raw|, over all weights."""
    differences = [one - other for one, other in zip(averaged, raw, strict=True)]
    share: Tensor = get_total_norm(differences) / get_total_norm(raw)
    return share


def floats(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that can be averaged, by name."""
    return {name: p.data for name, p in module.named_parameters() if p.is_floating_point()}
