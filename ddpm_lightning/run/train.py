"""python train.py: one Hydra job = one run, in a directory of its own, finished or marked
failed.
"""

import json
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.plots.curves import save_curves
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.run.checkpoint import check_resumable, check_same_experiment, find_run
from ddpm_lightning.run.config import Node, check, resolved
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.run.memory import fit_memory, take_auto
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.module import DiffusionModule

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Builds everything the configuration names, trains, and says where to look."""
    config = resolved(cfg)
    is_auto = take_auto(config)
    check(config)
    quiet()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data, module = build(config)
    fit_memory(config, module, data, is_auto)
    resume_from = None
    if config["ckpt_path"] is not None:
        run = find_run(str(config["ckpt_path"]), Path(config["outputs_dir"]))
        check_same_experiment(run, config)
        step = check_resumable(module, "ema" in config["callbacks"], run.checkpoint)
        unseen = (config["seed"] + step) % 2**32  # not the draws of the first steps again
        pl.seed_everything(unseen, workers=True, verbose=False)
        resume_from = str(run.checkpoint)
        log.info("resuming from %s, step %d", run.checkpoint, step)
    run_dir = Path(config["run_dir"])
    with recorded(run_dir, config):
        trainer = build_trainer(config, run_dir)  # before GIFs are decoded: it may be refused
        data.trainer = trainer  # which knows of other ranks
        with user_errors("data"):
            data.load()
        with user_errors("logger"):  # which starts here
            for logger in trainer.loggers:
                logger.log_hyperparams({**config, "skipped_gifs": data.skipped})
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
        if not config["trainer"].get("fast_dev_run"):
            # Once more: max_steps need not be a multiple of the checkpoint interval.
            trainer.save_checkpoint(run_dir / "checkpoints" / "last.ckpt", weights_only=False)
            finish(trainer, run_dir)


def build(config: Node) -> tuple[StoreDataModule, DiffusionModule]:
    """Data module and module; UserError where a value is refused or clips do not fit."""
    with user_errors("data"):
        data: StoreDataModule = instantiate(config["data"], _convert_="all")
    with user_errors("model"):
        module: DiffusionModule = instantiate(config["model"], _convert_="all")
        form = data.format
        clip = torch.zeros(1, form.channels, form.num_frames, form.height, form.width)
        with torch.no_grad():
            module.loss.check(module.denoiser, clip)
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


def build_trainer(config: Node, run_dir: Path) -> pl.Trainer:
    """The trainer with callbacks and loggers; metrics.csv is always among them."""
    with user_errors("callbacks"):
        callbacks = list(instantiate(config["callbacks"], _convert_="all").values())
    with user_errors("logger"):
        named = config["logger"]
        nodes = [named] if "_target_" in named else named.values()
        loggers: list[Logger] = [instantiate(node, _convert_="all") for node in nodes]
    loggers.append(CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=20))
    accelerator = config["trainer"].get("accelerator", "auto")
    with user_errors(f"trainer.accelerator={accelerator} (auto takes what this machine has)"):
        trainer: pl.Trainer = instantiate(
            config["trainer"], callbacks=callbacks, logger=loggers, _convert_="all"
        )
    check_fused(config)
    if trainer.max_steps == -1 and trainer.max_epochs in (None, -1):
        raise UserError("the run has no end; set trainer.max_steps, which the learning rate needs")
    if trainer.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            f"a sweep (-m) trains each job on one device, got {trainer.world_size}; "
            "add trainer.devices=1, or start the jobs one by one"
        )
    return trainer


def check_fused(config: Node) -> None:
    """UserError where a fused optimizer, which unscales gradients itself, would have them clipped
    before.
    """
    settings, optimizer = config["trainer"], config["model"].get("optimizer", {})
    clips = settings.get("gradient_clip_val") is not None
    if optimizer.get("fused") and clips and str(settings.get("precision")).startswith("16"):
        raise UserError(
            f"trainer.precision={settings['precision']} clips gradients only without a fused "
            "optimizer; add optimizer.fused=false, or choose trainer.precision=bf16-mixed"
        )


@contextmanager
def recorded(run_dir: Path, config: Node) -> Iterator[None]:
    """Writes config.yaml and status.json (running, then finished, failed or interrupted)."""
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (run_dir / "config.yaml").open("x") as file:
            yaml.safe_dump(config, file, sort_keys=False)
    except FileExistsError as e:
        raise UserError(f"{run_dir} already holds a run; choose another hydra.run.dir") from e
    (run_dir / "command.txt").write_text(command() + "\n")
    started = time.time()

    def record(status: str, error: str | None = None) -> None:
        entry = {"status": status, "seconds": round(time.time() - started, 1), "error": error}
        (run_dir / "status.json").write_text(json.dumps(entry, indent=2) + "\n")

    record("running")
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as e:  # Lightning turns the first into the second
        record("interrupted")
        _finish_wandb(exit_code=130)
        if (run_dir / "checkpoints" / "last.ckpt").exists():
            log.error("interrupted; go on with:\n%s ckpt_path=%s", command(), run_dir)
        raise KeyboardInterrupt from e
    except Exception as e:
        record("failed", f"{type(e).__name__}: {e}")
        _finish_wandb(exit_code=1)
        log.error("%s is marked failed", run_dir)
        raise
    record("finished")
    _finish_wandb(exit_code=0)


def command() -> str:
    """What starts this job, also one of a sweep, again."""
    return shlex.join(["python", "train.py", *HydraConfig.get().overrides.task])


def _finish_wandb(exit_code: int) -> None:
    # Without finish() two jobs of a sweep become one W&B run.
    wandb: Any = sys.modules.get("wandb")
    if wandb is not None:
        wandb.finish(exit_code=exit_code)


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
