"""What averages, guards, metrics, loggers and checkpoints cost, as a share of a training step.

python -m benchmarks.overhead FOLDER [NUM_PAIRS]

One run of the default model with its default loggers and logging interval, on one thread. Blocks of
steps with everything and with nothing but the optimizer and its clipped gradient take turns.
Checkpoints, which are far apart, are timed by themselves and shared out over their interval.
Seconds of processor time hold on a machine that has other work.
"""

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from ddpm_lightning.run.cli import CONF
from ddpm_lightning.run.config import resolved
from ddpm_lightning.run.train import build, build_trainer, quiet
from ddpm_lightning.training.checkpoint_io import STEP

BLOCK = 20  # steps; metrics reach the loggers twice in it
NUM_SAVES = 5


def now() -> np.ndarray:
    """Seconds on the clock, and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


class Switch(pl.Callback):
    """Takes callbacks and loggers away for every other block of steps, and times the blocks."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.all = list(trainer.callbacks), list(trainer.loggers)  # type: ignore[attr-defined]
        self.blocks: dict[bool, list[np.ndarray]] = {True: [], False: []}
        self.is_on = True

    def on_train_start(self, *args: Any) -> None:
        self.began = now()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step % BLOCK:
            return
        self.blocks[self.is_on].append((now() - self.began) / BLOCK)
        self.is_on = not self.is_on
        callbacks, loggers = self.all if self.is_on else ([], [])
        trainer.callbacks = [*callbacks, self]  # type: ignore[attr-defined]
        trainer.loggers = loggers
        self.began = now()


def main() -> None:
    folder, num_pairs = Path(sys.argv[1]).absolute(), int((sys.argv[2:] or ["12"])[0])
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
    pl.seed_everything(0, verbose=False)
    data, module = build(config)
    trainer = build_trainer(config, folder)
    switch = Switch(trainer)
    trainer.callbacks.append(switch)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=data)
    assert trainer.train_dataloader is not None
    trainer.train_dataloader.close()
    began = now()
    for number in range(NUM_SAVES):
        trainer.save_checkpoint(folder / "saved" / STEP.format(number))
    save = (now() - began) / NUM_SAVES
    on, off = (np.array(switch.blocks[is_on][1:]) for is_on in (True, False))
    print(f"{len(off)} pairs of {BLOCK} steps; load {os.getloadavg()[0]:.1f}")
    print("                    bare ms  with all ms  ratio  a save, ms  with saves")
    for i, name in enumerate(("clock", "processor time")):
        ratios = on[: len(off), i] / off[:, i]
        bare, ratio = median(off[:, i]), median(ratios)
        print(
            f"{name:18} {bare * 1e3:8.2f} {median(on[:, i]) * 1e3:12.2f} {ratio:6.3f} "
            f"{save[i] * 1e3:11.1f} {ratio + save[i] / interval / bare:11.3f}"
        )


if __name__ == "__main__":
    main()
