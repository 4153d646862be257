"""recorder.py, where PAUSE_RANK pauses at step 8: for PAUSE_SECONDS in the method PAUSE_IN.

A file `paused` says that it does.
"""

import os
import time
from pathlib import Path
from typing import Any

import train
from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.training.module import DiffusionModule
from tests.run.recorder import training_step

STEP = 8


def pause(module: DiffusionModule, method: str) -> None:
    is_there = module.trainer.training and module.trainer.global_step == STEP
    if is_there and (os.environ["PAUSE_RANK"], os.environ["PAUSE_IN"]) == (
        str(module.global_rank),
        method,
    ):
        Path("paused").touch()
        time.sleep(float(os.environ["PAUSE_SECONDS"]))


def pausing_step(self: DiffusionModule, batch: Any, batch_index: int) -> Any:
    pause(self, "training_step")
    return training_step(self, batch, batch_index)


def on_before_batch_transfer(self: DiffusionModule, batch: Any, dataloader_index: int) -> Any:
    pause(self, "on_before_batch_transfer")
    return batch


if __name__ == "__main__":
    DiffusionModule.training_step = pausing_step  # type: ignore[method-assign]
    DiffusionModule.on_before_batch_transfer = on_before_batch_transfer  # type: ignore[method-assign, assignment]
    run_command(train.main, "config")
