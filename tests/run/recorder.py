"""train.py, which also writes a line for every training step: step, numbers, clips and loss.

And, beside them, the process of each rank.
"""

import json
import os
from pathlib import Path

from torch import Tensor

import train
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.training.module import DiffusionModule

_step = DiffusionModule.training_step


def training_step(self: DiffusionModule, batch: Batch, batch_index: int) -> Tensor:
    loss = _step(self, batch, batch_index)
    row = [self.trainer.global_step, batch.number, batch.index.tolist(), float(loss.item()).hex()]
    with Path(f"steps-{self.global_rank}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    process = Path(f"rank-{self.global_rank}.new")
    process.write_text(str(os.getpid()))
    process.replace(process.with_suffix(".pid"))  # whole, whenever it is read
    return loss


if __name__ == "__main__":
    DiffusionModule.training_step = training_step  # type: ignore[method-assign]
    run_command(train.main, "config")
