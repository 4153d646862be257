"""python train.py: one Hydra job = one run, in a directory of its own, finished or marked
failed.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.plots.curves import save_curves
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.run.checkpoint import check_resumable
from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.config import Node, check, resolved
from ddpm_lightning.run.directory import (
    Start,
    create,
    logged,
    new_start,
    quoted,
    recorded,
    told_if_waiting,
)
from ddpm_lightning.run.errors import Stopped, UserError, user_errors
from ddpm_lightning.run.memory import fit_memory, with_batch_size
from ddpm_lightning.run.precision import choose_precision
from ddpm_lightning.run.ranks import accompanied, gathered, joined
from ddpm_lightning.run.resume import resumed_start
from ddpm_lightning.run.secrets import redact_logs, redacted
from ddpm_lightning.run.slurm import earlier_run, requeued
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.training.callbacks.agreement import SameConfiguration
from ddpm_lightning.training.checkpoint_io import VerifiedCheckpointIO
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.loggers import MetricsTable
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.signals import stopped_by_signals

PROBE_CLIPS = 8  # at most, to find the faster precision with

log = logging.getLogger(__name__)


def train(job: Job) -> None:
    """Builds everything the configuration names, trains, and says where to look."""
    with stopped_by_signals("interrupted"):  # until training is under way and watches itself
        run(job)


def run(job: Job) -> None:
    """The same, without a guard."""
    quiet()
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    if rank:
        follow(job, rank)
    else:
        lead(job)


def lead(job: Job) -> None:
    """Rank 0, often the only one: makes the run, records it and trains."""
    outputs = Path(job.cfg.outputs_dir)
    with gathered(job) as others:
        given = job.cfg.ckpt_path or earlier_run(outputs)
        start = new_start(job) if given is None else resumed_start(str(given), job)
        with told_if_waiting(start):
            plan = prepared(start)
        if start.is_new:
            plan = plan._replace(start=create(plan.start, is_named=job.cfg.run_dir is not None))
        start = plan.start
        with (
            requeued(start.directory, outputs),
            recorded(start, job.words),
            finished_wandb(),
        ):
            if start.checkpoint is not None:
                log.info("resuming from %s, step %d", start.checkpoint, plan.first_step)
            # Other ranks are started with the same words, as Lightning does it: they find all of
            # it in the run directory, whatever has become of conf/ and of the time.
            resume = start.checkpoint or start.directory
            sys.argv[1:] = [f"resume={quoted(resume)}"]
            trainer = fit(plan, partial(accompanied, others, start.directory, resume))
            if not start.config["trainer"].get("fast_dev_run"):
                finish(trainer, start.directory)


def follow(job: Job, rank: int) -> None:
    """Another rank: trains in the run that rank 0 has made, and lets that one speak."""
    logging.getLogger().setLevel(logging.WARNING)
    with joined(job, rank) as own:
        plan = prepared(resumed_start(str(own.cfg.ckpt_path), own))
        # A rank that ends at a signal ends well: else rank 0 would be killed for it.
        with logged(plan.start.directory), suppress(Stopped):
            fit(plan, nullcontext)


class Plan(NamedTuple):
    """What is trained, checked and built; training goes on at first_step."""

    start: Start
    data: StoreDataModule
    module: DiffusionModule
    first_step: int


def prepared(start: Start) -> Plan:
    """UserError for what is wrong with the configuration."""
    if is_auto := start.config["data"].get("batch_size") == "auto":
        start = with_batch_size(start, 1)  # until the memory that is needed is known
    config = start.config
    check(config)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data, module = build(config)
    if config["trainer"].get("precision") == "auto":
        num_clips, *form = batch_shape(data)
        clips = torch.zeros(min(num_clips, PROBE_CLIPS), *form)
        start = with_precision(start, choose_precision(accelerator(config), module, clips))
    start = fit_memory(start, module, data, is_auto)
    first_step = 0
    if start.checkpoint is not None:
        first_step = check_resumable(module, "ema" in config["callbacks"], start.checkpoint)
    return Plan(start, data, module, first_step)


def with_precision(start: Start, precision: str) -> Start:
    """The same with what precision=auto means here, which a resumed run will find in its place."""
    log.info("precision: %s", precision)
    start.cfg.trainer.precision = precision
    return start._replace(config=resolved(start.cfg))


def fit(plan: Plan, around: Callable[[pl.Trainer], AbstractContextManager[Any]]) -> pl.Trainer:
    """Trains to the end, with something around it."""
    config, directory = plan.start.config, plan.start.directory
    trainer = build_trainer(config, directory, plan.first_step)  # before GIFs are decoded
    data = plan.data
    data.trainer = trainer  # which knows of other ranks
    with around(trainer):
        with user_errors("data"):
            data.load()
        with user_errors("logger"):  # which starts here
            for logger in trainer.loggers:
                logger.log_hyperparams(redacted({**config, "skipped_gifs": data.skipped}))
        resume = plan.start.checkpoint
        try:
            trainer.fit(plan.module, datamodule=data, ckpt_path=resume, weights_only=True)
        finally:
            # Their threads fetch on: one that wakes while Python ends would abort the process.
            for loader in (trainer.train_dataloader, trainer.val_dataloaders):
                if loader is not None:
                    loader.close()
    return trainer


def build(config: Node) -> tuple[StoreDataModule, DiffusionModule]:
    """Data module and module; UserError where a value is refused or clips do not fit."""
    with user_errors("data"):
        data: StoreDataModule = instantiate(config["data"], _convert_="all")
    with user_errors("model"):
        module: DiffusionModule = instantiate(config["model"], _convert_="all")
        with torch.no_grad():
            module.loss.check(module.denoiser, torch.zeros(1, *batch_shape(data)[1:]))
        process = module.denoiser.process
        found = describe(process, module.denoiser.data_std).warnings
    with user_errors("sampler"):
        sampler: Sampler = instantiate(config["sampler"], _convert_="all")
        rehearse(sampler, process, learned_variance=module.loss.num_outputs == 2)
    if found and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        log.warning("this process and noise: %s", "; ".join(found))
    with user_errors("optimizer"):
        module.make_optimizer(module.denoiser.parameters())
    return data, module


def batch_shape(data: StoreDataModule) -> tuple[int, ...]:
    """(B, C, F, H, W) of one device."""
    form = data.format
    return data.batch_size, form.channels, form.num_frames, form.height, form.width


def accelerator(config: Node) -> str:
    """As Lightning names it."""
    return str(config["trainer"].get("accelerator", "auto"))


class Blank(NamedTuple):
    """An estimator that sees nothing, and has a variance where a network would have learned one."""

    process: GaussianProcess
    learned_variance: bool

    def estimate_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        return Estimate(torch.zeros_like(x), torch.zeros_like(x) if self.learned_variance else None)


def rehearse(sampler: Sampler, process: GaussianProcess, learned_variance: bool) -> None:
    """ValueError now, not after hours, where the sampler cannot walk: its first step, on zeros."""
    times = sampler.times(process)
    draw = partial(torch.zeros, 1, 1)
    start = sampler.start(Point.at(process, times[0]), process, draw)
    sampler.walk(Blank(process, learned_variance), start, times[:2], draw)


def build_trainer(config: Node, run_dir: Path, first_step: int = 0) -> pl.Trainer:
    """The trainer with callbacks and loggers; metrics.csv is always among them.

    Args:
        first_step: at which training goes on; curves go on there too.
    """
    with user_errors("callbacks"):
        callbacks = list(instantiate(config["callbacks"], _convert_="all").values())
        callbacks.append(SameConfiguration(config))
    with user_errors("logger"):
        logger = config["logger"]
        nodes = [logger] if "_target_" in logger else logger.values()
        loggers: list[Logger] = [
            instantiate(node, **continued(node, first_step), _convert_="all") for node in nodes
        ]
    loggers.append(MetricsTable(run_dir, first_step, flush_logs_every_n_steps=20))
    named = f"trainer.accelerator={accelerator(config)} (auto takes what this machine has)"
    with user_errors(named):
        trainer: pl.Trainer = instantiate(
            config["trainer"],
            callbacks=callbacks,
            logger=loggers,
            plugins=VerifiedCheckpointIO(),
            _convert_="all",
        )
    if trainer.max_steps == -1 and trainer.max_epochs in (None, -1):
        raise UserError("the run has no end; set trainer.max_steps, which the learning rate needs")
    return trainer


def continued(node: Node, first_step: int) -> Node:
    """What a logger needs to know to go on with its curves: W&B finds out by the run's id."""
    is_tensorboard = str(node["_target_"]).endswith(".TensorBoardLogger")
    return {"purge_step": first_step} if is_tensorboard and first_step else {}


@contextmanager
def finished_wandb() -> Iterator[None]:
    """Without finish() two jobs of a sweep become one W&B run."""
    code = 1
    try:
        yield
        code = 0
    finally:
        wandb: Any = sys.modules.get("wandb")
        if wandb is not None:
            wandb.finish(exit_code=code)


@rank_zero_only
def finish(trainer: pl.Trainer, run_dir: Path) -> None:
    """Draws the curves and says where everything is."""
    run_dir = Path(os.path.relpath(run_dir))
    samples = run_dir / "samples"
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    losses = ", ".join(f"{k} {metrics[k]:.4f}" for k in ("train/loss", "val/loss") if k in metrics)
    lines = [f"done: step {trainer.global_step}, {losses}", f"  run            {run_dir}"]
    pictures = {"samples": samples / "final.gif", "reverse film": samples / "reverse.gif"}
    lines += [f"  {name:<14} {path}" for name, path in pictures.items() if path.exists()]
    if (run_dir / "metrics.csv").exists():
        curves = save_curves(run_dir / "metrics.csv", run_dir / "curves.png")
        lines.append(f"  loss curves    {curves}")
    if (run_dir / "tensorboard").exists():
        lines.append("  dashboard      make dashboard, or tensorboard --logdir outputs")
    if offline := sorted(run_dir.glob("wandb/offline-run-*")):
        lines.append(f"  W&B (offline)  wandb sync {offline[-1]}")
    if (run := getattr(sys.modules.get("wandb"), "run", None)) is not None and run.url:
        lines.append(f"  W&B            {run.url}")
    lines.append(f"  sample again   python sample.py checkpoint={run_dir}")
    print("\n".join(lines))


def quiet() -> None:
    """Keeps the console for what a user can act on, and anyone can see."""
    redact_logs()
    for name in (
        "fabric.utilities.distributed",
        "fabric.utilities.seed",
        "pytorch.trainer.connectors.signal_connector",
        "pytorch.utilities.rank_zero",
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",  # on resuming: a new run has a directory of its own
        ".*all_gather is deprecated.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # they are gathered before
    ):
        warnings.filterwarnings("ignore", message)
