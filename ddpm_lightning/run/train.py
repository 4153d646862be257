"""python train.py: one Hydra job = one run, in a directory of its own, finished or marked
failed.
"""

import logging
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

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
from ddpm_lightning.run.slurm import requeued
from ddpm_lightning.training.callbacks.agreement import SameConfiguration
from ddpm_lightning.training.checkpoint_plugin import VerifiedCheckpointIO
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.loggers import MetricsTable, finished_wandb, log_file, log_text
from ddpm_lightning.training.module import DiffusionModule

MAX_CHARACTERS = 200_000  # of a text in a dashboard

log = logging.getLogger(__name__)


def train(start: Start, budget: Budget, job: Job) -> None:
    """Builds everything the configuration names, trains, and says where to look."""
    outputs = Path(job.cfg.outputs_dir)
    with told_if_waiting(start):
        config = start.config
        quiet()
        pl.seed_everything(config["seed"], workers=True, verbose=False)
        data, module = build(config)
        first_step = 0
        if start.checkpoint is not None:
            first_step = check_resumable(module, "ema" in config["callbacks"], start.checkpoint)
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        # A rank that ends at a signal ends well: else rank 0 would be killed for it.
        with logged(start.directory), suppress(Stopped):
            fit(start, data, module, budget, first_step)
        return
    if start.is_new:
        start = create(start, is_named=job.cfg.run_dir is not None)
    with (
        requeued(start.directory, outputs),
        recorded(start, job.words),
        finished_wandb(),
    ):
        if start.checkpoint is not None:
            log.info("resuming from %s, step %d", start.checkpoint, first_step)
        # Other ranks are started with the same words, as Lightning does it: they find all of it
        # in the run directory, whatever has become of conf/ and of the time.
        sys.argv[1:] = [f"resume={quoted(start.checkpoint or start.directory)}"]
        trainer = fit(start, data, module, budget, first_step)
        if not start.config["trainer"].get("fast_dev_run"):
            finish(trainer, start.directory)


def fit(
    start: Start,
    data: StoreDataModule,
    module: DiffusionModule,
    budget: Budget,
    first_step: int,
) -> pl.Trainer:
    """Says what it is about to do and trains to the end."""
    config, directory = start.config, start.directory
    trainer = build_trainer(config, directory, first_step)  # before GIFs are decoded
    data.trainer = trainer  # which knows of other ranks
    with user_errors("data"):
        data.load()
    with user_errors("logger"):  # which starts here
        for logger in trainer.loggers:
            logger.log_hyperparams({**config, "skipped_gifs": data.skipped})
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        told = overview(start, trainer, data, module, budget)
        log.info("%s", told)
        show(trainer.loggers, directory, told, first_step)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
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
        for path in (config, directory / LOG, starts[-1], patch):
            log_file(logger, path, directory)


def build(config: Node) -> tuple[StoreDataModule, DiffusionModule]:
    """Data module and module; UserError where a value is refused."""
    with user_errors("data"):
        data: StoreDataModule = instantiate(config["data"], _convert_="all")
    with user_errors("model"):
        module: DiffusionModule = instantiate(config["model"], _convert_="all")
    return data, module


def accelerator(config: Node) -> str:
    """As Lightning names it."""
    return str(config["trainer"].get("accelerator", "auto"))


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
    losses = ", ".join(f"{k} {metrics[k]:.4f}" for k in ("train/loss", "val/loss") if k in metrics)
    lines = [f"done: step {trainer.global_step}, {losses}", f"  run            {run_dir}"]
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
        lines.append(f"  W&B (offline)  wandb sync {run_dir}/wandb/offline-run-*")
    run = getattr(sys.modules.get("wandb"), "run", None)
    if run is not None and not run.offline and run.url:
        lines.append(f"  W&B            {run.url}")
    lines.append(f"  sample again   python sample.py checkpoint={run_dir}")
    print("\n".join(lines))


def quiet() -> None:
    """Keeps the console for what a user can act on."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",  # on resuming: a new run has a directory of its own
    ):
        warnings.filterwarnings("ignore", message)
