"""python train.py: one Hydra job = one run, in a directory of its own, finished or marked
failed.
"""

import atexit
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.plots.curves import save_curves
from ddpm_lightning.run.checkpoint import check_resumable
from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.directory import (
    LOG,
    Start,
    create,
    logged,
    quoted,
    recorded,
    told_if_waiting,
)
from ddpm_lightning.run.errors import Stopped, user_errors
from ddpm_lightning.run.memory import Budget
from ddpm_lightning.run.overview import overview
from ddpm_lightning.run.ranks import Meeting, accompanied, followed
from ddpm_lightning.run.secrets import redact_logs, redacted
from ddpm_lightning.run.slurm import requeued
from ddpm_lightning.training.callbacks.agreement import SameConfiguration
from ddpm_lightning.training.checkpoint_plugin import VerifiedCheckpointIO
from ddpm_lightning.training.datamodule import ClipDataModule
from ddpm_lightning.training.fit_loop import FitLoop
from ddpm_lightning.training.loggers import MetricsTable, finished_wandb, log_file, log_text
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.watch import Watch

MAX_CHARACTERS = 200_000  # of a text in a dashboard

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What is trained, built; training goes on at first_step."""

    start: Start
    data: ClipData
    module: DiffusionModule
    budget: Budget
    first_step: int


def lead(start: Start, budget: Budget, job: Job, others: Meeting | None) -> None:
    """Rank 0, often the only one: makes the run, records it, trains, and says where to look."""
    outputs = Path(job.cfg.outputs_dir)
    plan = built(start, budget)
    if start.is_new:
        start = create(start, is_named=job.cfg.run_dir is not None)
        plan = plan._replace(start=start)
    with (
        requeued(start.directory, outputs, job.words),
        recorded(start, job.words, plan.first_step),
        finished_wandb(),
    ):
        if start.checkpoint is not None:
            log.info("resuming from %s, step %d", start.checkpoint, plan.first_step)
        # Other ranks are started with the same words, as Lightning does it: they find all of it
        # in the run directory, whatever has become of conf/ and of the time.
        resume = start.checkpoint or start.directory
        sys.argv[1:] = [f"resume={quoted(resume)}"]
        trainer = fit(plan, partial(accompanied, others, start.directory, resume))
        if not start.config["trainer"].get("fast_dev_run"):
            finish(trainer, start.directory)


def follow(start: Start, budget: Budget, watch: Watch) -> None:
    """Another rank: trains in the run that rank 0 has made, and lets that one speak."""
    plan = built(start, budget)
    # A rank that ends at a signal ends well: else rank 0 would be killed for it.
    with logged(start.directory), suppress(Stopped):
        fit(plan, partial(followed, watch))


def built(start: Start, budget: Budget) -> Plan:
    """All that the configuration names, with a checkpoint that fits it."""
    config = start.config
    quiet()
    collect_garbage()
    with told_if_waiting(start):
        pl.seed_everything(config["seed"], workers=True, verbose=False)
        data, module = build(config)
        first_step = 0
        if start.checkpoint is not None:
            first_step = check_resumable(module, "ema" in config["callbacks"], start.checkpoint)
    return Plan(start, data, module, budget, first_step)


def collect_garbage() -> None:
    """From now on, but for what imports have made: it stays, and looking through it takes a second.

    At Python's end it is looked through: else extensions take it for leaks, and say so.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.enable()


def fit(plan: Plan, around: Callable[[pl.Trainer], AbstractContextManager[Any]]) -> pl.Trainer:
    """Says what it is about to do and trains to the end, with something around it."""
    config, directory = plan.start.config, plan.start.directory
    trainer = build_trainer(config, directory, plan.first_step)  # before GIFs are decoded
    data = plan.data
    with around(trainer):
        with user_errors("data"):
            data.load(trainer.world_size)
        with user_errors("logger"):  # which starts here
            for logger in trainer.loggers:
                logger.log_hyperparams(redacted({**config, "skipped_gifs": data.skipped}))
        if trainer.is_global_zero:
            told = redacted(overview(plan.start, trainer, data, plan.module, plan.budget))
            log.info("%s", told)
            show(trainer.loggers, directory, told, plan.first_step)
        resume = plan.start.checkpoint
        try:
            clips = ClipDataModule(data)
            trainer.fit(plan.module, datamodule=clips, ckpt_path=resume, weights_only=True)
        finally:
            # Their threads fetch on: one that wakes while Python ends would abort the process.
            for loader in (trainer.train_dataloader, trainer.val_dataloaders):
                if loader is not None:
                    loader.close()
    return trainer


def show(loggers: list[Logger], directory: Path, told: str, step: int) -> None:
    """In the dashboards: what the run says of itself, its configuration, changes of the code."""
    config, starts = directory / "config.yaml", sorted(directory.glob("starts/*.json"))
    patch = starts[-1].with_suffix(".patch")
    texts = {"overview": told, "config": config.read_text()}
    if patch.exists():
        texts["git diff"] = patch.read_text()
    for logger in loggers:
        for tag, text in texts.items():
            log_text(logger, tag, text[:MAX_CHARACTERS], step)
        for path in (directory / LOG, starts[-1], patch):  # W&B has a config.yaml of its own
            log_file(logger, path, directory)


def build(config: Node) -> tuple[ClipData, DiffusionModule]:
    """Data and module; UserError where a value is refused."""
    with user_errors("data"):
        data: ClipData = instantiate(config["data"], _convert_="all")
    with user_errors("model"):
        module: DiffusionModule = instantiate(config["model"], _convert_="all")
    return data, module


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
    with user_errors("trainer"):
        trainer: pl.Trainer = instantiate(
            config["trainer"],
            callbacks=callbacks,
            logger=loggers,
            plugins=VerifiedCheckpointIO(),
            _convert_="all",
        )
    trainer.fit_loop = FitLoop.of(trainer)
    return trainer


def continued(node: Node, first_step: int) -> Node:
    """What a logger needs to know to go on with its curves: W&B finds out by the run's id."""
    is_tensorboard = str(node["_target_"]).endswith(".TensorBoardLogger")
    return {"purge_step": first_step} if is_tensorboard and first_step else {}


@rank_zero_only
def finish(trainer: pl.Trainer, run_dir: Path) -> None:
    """Draws the curves and says where everything is."""
    run_dir = Path(os.path.relpath(run_dir))
    samples = run_dir / "samples"
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    losses = [f"{k} {metrics[k]:.4f}" for k in ("train/loss", "val/loss") if k in metrics]
    told = ", ".join([f"step {trainer.global_step}", *losses])
    lines = [f"done: {told}", f"  run            {run_dir}"]
    pictures = {"samples": samples / "final.gif", "reverse film": samples / "reverse.gif"}
    lines += [f"  {name:<14} {path}" for name, path in pictures.items() if path.exists()]
    if any(samples.glob("compare_*.gif")):
        lines.append(f"  compared       {samples}/compare_*.gif")
    if (run_dir / "metrics.csv").exists():
        curves = save_curves(run_dir / "metrics.csv", run_dir / "curves.png")
        lines.append(f"  loss curves    {curves}")
    if (run_dir / "tensorboard").exists():
        lines.append("  dashboard      make dashboard, or tensorboard --logdir outputs")
    if any(run_dir.glob("wandb/offline-run-*")):
        lines.append(f"  W&B (offline)  wandb sync {quote(str(run_dir))}/wandb/offline-run-*")
    run = getattr(sys.modules.get("wandb"), "run", None)
    if run is not None and not run.offline and run.url:
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
