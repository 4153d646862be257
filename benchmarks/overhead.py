"""What averages, guards, metrics, loggers and checkpoints cost, as a share of a training step.

python -m benchmarks.overhead FOLDER [NUM_PAIRS]

One run of the default model with its default loggers and logging interval, on one thread. Blocks of
steps with everything and with nothing but the optimizer and its clipped gradient take turns. What
counts is the lower quartile of all steps that are at one place in the logging interval: other work
on the machine makes many of them slower. Checkpoints, which are far apart, are timed by themselves
and shared out over their interval.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from ddpm_lightning.files.checkpoints import STEP
from ddpm_lightning.run.commands.train import seed_everything
from ddpm_lightning.run.config.build import build_data, build_denoiser
from ddpm_lightning.run.config.check import resolved
from ddpm_lightning.run.config.words import CONF
from ddpm_lightning.run.fitting.fit import build_module, build_trainer, quiet
from ddpm_lightning.training.datamodule import ClipDataModule

BLOCK = 10  # steps, a logging interval: other work comes and goes in seconds
NUM_SAVES = 5


def now() -> np.ndarray:
    """Seconds on the clock, and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


class Switch(pl.Callback):
    """Takes callbacks and loggers away for every other block of steps, and times all steps."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.all = list(trainer.callbacks), list(trainer.loggers)  # type: ignore[attr-defined]
        self.steps: dict[bool, list[np.ndarray]] = {True: [], False: []}  # what each has taken
        self.is_on = True

    def on_train_start(self, *args: Any) -> None:
        self.began = now()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps[self.is_on].append(now() - self.began)
        if trainer.global_step % BLOCK == 0:
            self.is_on = not self.is_on
            callbacks, loggers = self.all if self.is_on else ([], [])
            trainer.callbacks = [*callbacks, self]  # type: ignore[attr-defined]
            trainer.loggers = loggers
        self.began = now()

    def seconds(self, is_on: bool, interval: int) -> np.ndarray:
        """Of a step, on the clock and of processor time; without the first block."""
        steps = np.array(self.steps[is_on][BLOCK:]).reshape(-1, interval, 2)
        found: np.ndarray = np.quantile(steps, 0.25, axis=0).mean(axis=0)
        return found


def main() -> None:
    folder, num_pairs = Path(sys.argv[1]).absolute(), int((sys.argv[2:] or ["30"])[0])
    torch.set_num_threads(1)
    quiet()
    words = [f"run_dir={folder}", "run_name=overhead", "run_id=overhead", "~callbacks.samples"]
    words += ["trainer.accelerator=cpu", "trainer.precision=32-true"]
    words += [f"trainer.max_steps={2 * BLOCK * (num_pairs + 1)}", "+trainer.limit_val_batches=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        interval = compose("config", words).callbacks.checkpoints.every_n_steps
        config = resolved(
            compose("config", [*words, f"callbacks.checkpoints.every_n_steps={10**9}"])
        )
    seed_everything(0)
    module = build_module(config["model"], build_denoiser(config["model"]))
    data = build_data(config["data"])
    trainer = build_trainer(config, folder)
    switch = Switch(trainer)
    trainer.callbacks.append(switch)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=ClipDataModule(data))
    assert trainer.train_dataloader is not None
    trainer.train_dataloader.close()
    began = now()
    for number in range(NUM_SAVES):
        trainer.save_checkpoint(folder / "saved" / STEP.format(number))
    save = (now() - began) / NUM_SAVES
    log_every = config["trainer"]["log_every_n_steps"]
    on, off = (switch.seconds(is_on, log_every) for is_on in (True, False))
    print(f"{num_pairs} pairs of {BLOCK} steps; load {os.getloadavg()[0]:.1f}")
    print("                    bare ms  with all ms  ratio  a save, ms  with saves")
    for i, name in enumerate(("clock", "processor time")):
        print(
            f"{name:18} {off[i] * 1e3:8.2f} {on[i] * 1e3:12.2f} {on[i] / off[i]:6.3f} "
            f"{save[i] * 1e3:11.1f} {(on[i] + save[i] / interval) / off[i]:11.3f}"
        )


if __name__ == "__main__":
    main()
