"""Measures training: clips and operations per second, the share of time spent on waiting, memory,
the learning rate, and the gradient's norm, whole and by block of the network.
"""

import time
from functools import lru_cache
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.networks.flops import forward_flops, peak_flops
from ddpm_lightning.networks.memory import GIB
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.module import DiffusionModule


class Throughput(pl.Callback):
    """Logs rates, waiting and memory at the trainer's logging interval.

    Time spent on validation, samples and checkpoints is not counted. Under several devices the rate
    is that of all of them. train/tflops counts what the network's graph needs per step, times 1e-12
    and per second and device; train/mfu is its share of the device's bfloat16 peak, where known.
    train/memory_gib is the peak so far, of tensors on a GPU.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_window(trainer)

    def _start_window(self, trainer: pl.Trainer) -> None:
        self._clips, self._step_seconds, self._waited_before = 0, 0.0, waited(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._start = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if is_logging_step(trainer, trainer.global_step + 1):
            assert isinstance(pl_module, DiffusionModule)
            norms = gradient_norms(pl_module.denoiser.network)
            pl_module.log("train/grad_norm", torch.stack(list(norms.values())).norm())
            pl_module.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            pl_module.log_dict({f"grad_norm/{block}": norm for block, norm in norms.items()})

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        logs = is_between_steps(trainer) and is_logging_step(trainer, trainer.global_step)
        if logs and pl_module.device.type != "cpu":
            torch.accelerator.synchronize()  # the window's kernels have run when it ends
        self._step_seconds += time.perf_counter() - self._start
        self._clips += len(batch.clip) * trainer.world_size
        if logs:
            wait = waited(trainer) - self._waited_before
            seconds = self._step_seconds + wait
            pl_module.log("train/clips_per_s", self._clips / seconds, prog_bar=True)
            pl_module.log("train/data_wait", wait / seconds, prog_bar=True)
            assert isinstance(pl_module, DiffusionModule)
            _, frames, height, width, channels = batch.clip.shape
            flops = training_flops(pl_module.denoiser, (channels, frames, height, width))
            rate = flops * self._clips / seconds / trainer.world_size
            pl_module.log("train/tflops", rate / 1e12)
            if (peak := peak_flops(pl_module.device)) is not None:
                pl_module.log("train/mfu", rate / peak)
            if pl_module.device.type == "cuda":
                memory = torch.cuda.max_memory_allocated(pl_module.device)
                pl_module.log("train/memory_gib", memory / GIB)
            self._start_window(trainer)


@lru_cache(maxsize=1)  # counted once for a run
def training_flops(denoiser: Denoiser, clip: tuple[int, ...]) -> int:
    """Return those of a training step for each clip (C, F, H, W): a gradient needs two products
    for each of the network's.
    """
    conditions = {name: value.shape[1:] for name, value in denoiser.conditions.null(1).items()}
    return 3 * forward_flops(denoiser.network, (1, *clip), conditions)


def gradient_norms(network: nn.Module) -> dict[str, Tensor]:
    """Return the norms of every block's gradient, by its name: entry, down_0, down_1, .., exit.

    A parameter of the network's own, such as pos_embed, is a block.
    """
    blocks: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        child, _, inside = name.partition(".")
        index = inside.partition(".")[0]
        block = f"{child}_{index}" if index.isdigit() else child
        if parameter.grad is not None:
            blocks.setdefault(block, []).append(parameter.grad)
    return {block: get_total_norm(gradients) for block, gradients in blocks.items()}


def is_logging_step(trainer: pl.Trainer, step: int) -> bool:
    """Return whether metrics of this optimizer step reach the loggers."""
    interval = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return interval > 0 and step % interval == 0


def waited(trainer: pl.Trainer) -> float:
    """Return the seconds that this process has waited for training batches so far."""
    loader = trainer.train_dataloader
    return float(loader.wait_seconds) if loader is not None else 0.0
