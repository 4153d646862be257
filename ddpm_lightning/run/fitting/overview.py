"""One screen before step 0: what is about to be trained, on what, and where it goes."""

import math
from os.path import relpath

import lightning.pytorch as pl
import torch

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.processes.report import describe
from ddpm_lightning.run.directory.start import Start
from ddpm_lightning.run.fitting.memory import Budget
from ddpm_lightning.training.callbacks.throughput import training_flops
from ddpm_lightning.training.compilation import PAYS_FROM, pays
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.text import labelled


def overview(
    start: Start,
    trainer: pl.Trainer,
    data: ClipData,
    module: DiffusionModule,
    budget: Budget,
    first_step: int,
) -> str:
    """Return the overview, at most twenty lines, of a run whose data are loaded."""
    choice, form = start.choices, data.format
    assert data.store is not None
    factors = {"devices": trainer.world_size, "accumulated": trainer.accumulate_grad_batches}
    clips = data.batch_size * math.prod(factors.values())
    more = "".join(f" x {number} {what}" for what, number in factors.items() if number > 1)
    steps_per_epoch = len(data.train_set) / clips
    gflops = training_flops(module.denoiser, form.shape) / 1e9
    num_parameters = sum(p.numel() for p in module.denoiser.parameters())
    report = describe(module.denoiser.process, (1, *form.shape))
    return labelled(
        model=f"{choice['network']}, {num_parameters:,} parameters; "
        f"objective {choice['objective']}, loss {choice['loss']}, times {choice['times']}",
        conditions=_conditions(module.denoiser.conditions),
        memory=f"{budget} on each device" if more else str(budget),
        compute=f"{gflops * clips:,.3g} GFLOP a step, {gflops:,.3g} a clip",
        schedule=f"{choice['model']}, {choice['noise']}: {report}",
        unusual="; ".join(report.warnings),
        data=f"{data.store.summary()}\n{len(data.train_set):,} to train on, {len(data.val_set):,} "
        f"to validate on; {form.num_frames} frames of {form.width}x{form.height}, "
        f"{'grey' if form.channels == 1 else 'colour'}, {form.fps:g} a second\n"
        f"in -1 to 1 values have {module.denoiser.statistics}",
        device=f"{_device(trainer)}; precision: {trainer.precision}, "
        f"{_compiled(module, trainer, _num_steps(trainer, steps_per_epoch) - first_step)}",
        batch=f"{clips:,} clips a step" + (f": {data.batch_size}{more}" if more else ""),
        length=_length(trainer, steps_per_epoch),
        output=relpath(start.directory),
    )


def _conditions(conditions: Conditions) -> str:
    dropped = ""
    if wishes := " and ".join(conditions.wishes):
        dropped = f"; {conditions.dropout:.0%} of clips are trained on without {wishes}"
    return ", ".join(map(str, conditions.members.values())) + dropped


def _device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name
    threads = f"{torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else "one thread"
    processes = f"{trainer.world_size} processes of " if trainer.world_size > 1 else ""
    return f"{device.type}, {processes}{threads}"


def _compiled(module: DiffusionModule, trainer: pl.Trainer, num_steps: float) -> str:
    device = trainer.strategy.root_device
    if pays(module.compiles, device, num_steps):
        return "compiled"
    is_short = module.compiles == "auto" and device.type == "cuda"
    return "not compiled" + (f", which pays from {PAYS_FROM:,} steps on" if is_short else "")


def _num_steps(trainer: pl.Trainer, steps_per_epoch: float) -> float:
    if trainer.max_steps != -1:
        return trainer.max_steps
    assert trainer.max_epochs is not None
    return trainer.max_epochs * steps_per_epoch


def _length(trainer: pl.Trainer, steps_per_epoch: float) -> str:
    num_steps = _num_steps(trainer, steps_per_epoch)
    if trainer.max_steps != -1:
        return f"{num_steps:,} steps, {num_steps / steps_per_epoch:,.1f} epochs"
    return f"{num_steps:,.0f} steps, {trainer.max_epochs:,} epochs"
