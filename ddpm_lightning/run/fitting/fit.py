"""A run with Lightning around it: the parts that its trainer holds, and what is done with them."""

import atexit
import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.memory import is_oom_error
from torch import Tensor

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.plots.curves import save_curves
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.run.config.check import Node, check_with_lightning
from ddpm_lightning.run.config.errors import Stopped, user_errors
from ddpm_lightning.run.config.paste import path_command
from ddpm_lightning.run.config.secrets import redact_logs, redacted
from ddpm_lightning.run.directory.checkpoint import check_resumable
from ddpm_lightning.run.directory.slurm import requeued
from ddpm_lightning.run.directory.start import CLIPS, LOG, Start, logged, recorded, write_text
from ddpm_lightning.run.fitting.memory import Budget, first_step_error, training_device
from ddpm_lightning.run.fitting.overview import overview
from ddpm_lightning.run.fitting.ranks import Ranks
from ddpm_lightning.run.sweeps.ranking import ERROR, check_metric
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.training.callbacks.quality import SampleQuality
from ddpm_lightning.training.callbacks.samples import SampleGrid
from ddpm_lightning.training.checkpoint_plugin import VerifiedCheckpointIO
from ddpm_lightning.training.compilation import check_graphs
from ddpm_lightning.training.datamodule import ClipDataModule
from ddpm_lightning.training.lightning_inside import FitLoop
from ddpm_lightning.training.loggers import MetricsTable, finished_wandb, log_file, log_text
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.process_group import lost_ranks
from ddpm_lightning.training.strategy import register

MAX_CHARACTERS = 200_000  # of a text in a dashboard
MOMENTS_FROM = 2  # steps: the second is the first that has the optimizer's moments from its start
MAX_MEASURED = 1024  # training clips whose mean and deviation are those of a run

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """The objects of a run once built; training begins, or is resumed, at first_step."""

    start: Start
    data: ClipData
    module: DiffusionModule
    trainer: pl.Trainer
    budget: Budget
    first_step: int


def build_run(start: Start, denoiser: Denoiser, data: ClipData, budget: Budget) -> Run:
    """Build the rest of a run around its denoiser and its data.

    Raises:
        UserError: where a value is refused, or the checkpoint is of another network.
    """
    quiet()
    freeze_imports()
    config, first_step = start.config, 0
    if training_device(config["trainer"]).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, for what is not in half precision
    check_with_lightning(config)
    module = build_module(config["model"], denoiser)
    if start.checkpoint is not None:
        first_step = check_resumable(denoiser, "ema" in config["callbacks"], start.checkpoint)
    trainer = build_trainer(config, start.directory, first_step)
    return Run(start, data, module, trainer, budget, first_step)


def build_module(model: Node, denoiser: Denoiser) -> DiffusionModule:
    """Build what trains a denoiser, from a node `model`."""
    training = {key: value for key, value in model.items() if key != "denoiser"}
    with user_errors("model"):
        make_module = instantiate(training, _partial_=True, _convert_="all")
    with user_errors("optimizer"):
        module: DiffusionModule = make_module(denoiser)
    return module


def build_trainer(config: Node, run_dir: Path, first_step: int = 0) -> pl.Trainer:
    """Build the trainer with callbacks and loggers; metrics.csv is always among them.

    Args:
        first_step: at which training is resumed; curves are continued there.
    """
    options = dict(config["trainer"])
    if isinstance(options.get("val_check_interval"), float | None):  # a share of an epoch, or one
        options["check_val_every_n_epoch"] = options.get("check_val_every_n_epoch") or 1
    with user_errors("callbacks"):
        callbacks = list(instantiate(config["callbacks"], _convert_="all").values())
    if options.get("enable_progress_bar") is False:
        callbacks = [each for each in callbacks if not isinstance(each, ProgressBar)]
    with user_errors("logger"):
        logger = config["logger"]
        nodes = [logger] if "_target_" in logger else logger.values()
        loggers: list[Logger] = []
        for node in nodes:  # a curve goes on at its step; W&B knows by the run's id
            is_board = str(node["_target_"]).endswith(".TensorBoardLogger")
            purge = {"purge_step": first_step} if is_board and first_step else {}
            loggers.append(instantiate(node, **purge, _convert_="all"))
    loggers.append(MetricsTable(run_dir, first_step, flush_logs_every_n_steps=20))
    register()
    with user_errors("trainer"):
        trainer: pl.Trainer = instantiate(
            options,
            callbacks=callbacks,
            logger=loggers,
            plugins=VerifiedCheckpointIO(),
            _convert_="all",
        )
    trainer.fit_loop = FitLoop.of(trainer)
    return trainer


def check(run: Run) -> None:
    """Ask the objects, before GIFs are decoded, whether they work with one another.

    Raises:
        UserError: if the schedule has no noise, a sampler cannot walk, the network refuses the
            clips or does not give what the loss needs.
    """
    module, denoiser = run.module, run.module.denoiser
    clip = torch.zeros(1, *run.data.format.shape)
    floor = log_snr_floor(clip.shape)
    with user_errors("model"):
        check_graphs(module.compiles, run.trainer.accumulate_grad_batches)
        describe(denoiser.process, clip.shape)
    monitor = run.start.config["callbacks"].get("checkpoints", {}).get("monitor", ERROR)
    check_metric(f"callbacks.checkpoints.monitor={monitor}")
    with user_errors("sampler"):
        for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
            samplers: list[Sampler] = []
            if isinstance(callback, SampleGrid):
                callback.check()
                samplers = [callback.sampler, *callback.compare.values()]
            elif isinstance(callback, SampleQuality) and callback.every_n_validations:
                samplers = [callback.sampler]
            for sampler in samplers:
                rehearse(sampler, denoiser.process, floor, module.loss.num_outputs == 2)
    with user_errors("model"), torch.no_grad():
        module.loss.check(denoiser, clip)


class Blank(NamedTuple):
    """Answers every call with 0, and a variance where a network would have learned one."""

    process: GaussianProcess
    learned_variance: bool
    statistics: Statistics

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return Estimate(torch.zeros_like(x), torch.zeros_like(x) if self.learned_variance else None)


def rehearse(
    sampler: Sampler, process: GaussianProcess, floor: float, learned_variance: bool
) -> None:
    """Walk the first step, on zeros, and raise ValueError now, not after hours, if that fails."""

    def draw() -> Tensor:
        return torch.zeros(1, 1)

    times = sampler.times(process, floor)
    x = sampler.start(Point.at(process, times[0]), process, draw)
    sampler.walk(Blank(process, learned_variance, Statistics()), x, times[:2], draw)


@contextmanager
def record(run: Run, ranks: Ranks) -> Iterator[None]:
    """Record a run around its training: rank 0 its configuration, start and status; others log."""
    start = run.start
    if not ranks.is_first:
        # A rank that a signal ends has ended well: else an agent would kill rank 0 for it.
        # Lightning exits at a second Ctrl-C.
        with logged(start.directory), suppress(Stopped, KeyboardInterrupt, SystemExit):
            yield
        return
    with (
        requeued(start.directory, Path(ranks.job.cfg.outputs_dir), ranks.job.words),
        recorded(start, ranks.job.words, run.first_step),
        finished_wandb(),
    ):
        if start.checkpoint is not None:
            how = "forked from" if start.is_new else "resuming from"
            log.info("%s %s, step %d", how, start.checkpoint, run.first_step)
        yield


def fit(run: Run) -> None:
    """Load the data, log what is about to be trained, and train to the end."""
    start, data, trainer = run.start, run.data, run.trainer
    resume = start.own_checkpoint
    with lost_ranks():
        with user_errors("data"):
            data.load(trainer.world_size)
            if resume is None and trainer.is_global_zero:  # other ranks get them from this one
                run.module.denoiser.statistics.measure(data.examples(MAX_MEASURED))
                write_clips(data, run.module.denoiser.statistics, start.directory)
        with user_errors("condition"):
            run.module.denoiser.conditions.prepare(data.annotations())
        with user_errors("callbacks.quality"):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, SampleQuality):
                    callback.check(data)
        with user_errors("logger"):  # which starts here
            for logger in trainer.loggers:
                hyperparameters = {**start.config, "skipped_gifs": data.skipped}
                logger.log_hyperparams(redacted(hyperparameters))
        if trainer.is_global_zero:
            text = redacted(overview(start, trainer, data, run.module, run.budget, run.first_step))
            log.info("%s", text)
            show(trainer.loggers, start.directory, text, run.first_step)
        try:
            trainer.fit(
                run.module, datamodule=ClipDataModule(data), ckpt_path=resume, weights_only=True
            )
        except RuntimeError as e:
            is_memory = isinstance(e, torch.OutOfMemoryError) or is_oom_error(e)
            if is_memory and trainer.global_step < run.first_step + MOMENTS_FROM:
                raise first_step_error(start.config) from e
            raise
        finally:
            # Threads that load on would abort the process if they woke while Python ends.
            for loader in (trainer.train_dataloader, trainer.val_dataloaders):
                if loader is not None:
                    loader.close()


def write_clips(data: ClipData, statistics: Statistics, directory: Path) -> None:
    """Write clips.json: which clips errors are measured on and in which units, for sweeps."""
    clips = {
        "held_out_sha256": data.val_set.digest(),
        "mean": statistics.mean.tolist(),
        "std": float(statistics.std),
    }
    write_text(directory / CLIPS, json.dumps(clips, indent=2) + "\n")


def show(loggers: list[Logger], directory: Path, overview_text: str, step: int) -> None:
    """Log the overview, the configuration and changes of the code to the dashboards."""
    config, starts = directory / "config.yaml", sorted(directory.glob("starts/*.json"))
    patch = starts[-1].with_suffix(".patch")
    texts = {"overview": overview_text, "config": config.read_text()}
    if patch.exists():
        texts["git diff"] = patch.read_text()
    for logger in loggers:
        for tag, text in texts.items():
            log_text(logger, tag, text[:MAX_CHARACTERS], step)
        for path in (directory / LOG, starts[-1], patch):  # W&B has a config.yaml of its own
            log_file(logger, path, directory)


@rank_zero_only
def finish(run: Run) -> None:
    """Draw the curves and print where everything is."""
    trainer, run_dir = run.trainer, Path(os.path.relpath(run.start.directory))
    if run.start.config["trainer"].get("fast_dev_run"):
        return
    samples = run_dir / "samples"
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    losses = [f"{k} {metrics[k]:.4f}" for k in ("train/loss", "val/error") if k in metrics]
    lines = [f"done: {', '.join([f'step {trainer.global_step}', *losses])}"]
    lines.append(f"  run            {run_dir}")
    pictures = {"samples": samples / "final.gif", "reverse film": samples / "reverse.gif"}
    lines += [f"  {name:<14} {path}" for name, path in pictures.items() if path.exists()]
    if (run_dir / "metrics.csv").exists():
        curves = save_curves(run_dir / "metrics.csv", run_dir / "curves.png")
        lines.append(f"  loss curves    {curves}")
    if (run_dir / "tensorboard").exists():
        lines.append(f"  dashboard      tensorboard --logdir {quote(str(run_dir.parent))}")
    if any(run_dir.glob("wandb/offline-run-*")):
        lines.append(f"  W&B (offline)  wandb sync {quote(str(run_dir))}/wandb/offline-run-*")
    wandb_run: Any = getattr(sys.modules.get("wandb"), "run", None)
    if wandb_run is not None and not wandb_run.offline and wandb_run.url:
        lines.append(f"  W&B            {wandb_run.url}")
    lines.append(f"  sample again   {path_command('sample.py', 'checkpoint', run_dir)}")
    print("\n".join(lines))


def freeze_imports() -> None:
    """Exclude what imports have allocated from garbage collection, which takes a second over it.

    At Python's end it is collected: else extensions take it for leaks, and report it.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.enable()


def quiet() -> None:
    """Keep log messages and warnings that no user can act on from the console."""
    redact_logs()
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*is deprecated.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*all_gather is deprecated.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # they are gathered before
    ):
        warnings.filterwarnings("ignore", message)
