"""train.py, which also writes the collectives from each batch to the next, and every gradient."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

import train
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.training.module import DiffusionModule

_start = DiffusionModule.on_train_batch_start


class Collectives(TorchDispatchMode):
    """Counts calls of torch.distributed by name."""

    counts: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        space, name = func._schema.name.split("::")
        self.counts[name] += space == "c10d"
        return func(*args, **(kwargs or {}))


def on_train_batch_start(self: DiffusionModule, batch: Batch, batch_index: int) -> None:
    with Path(f"collectives-{self.global_rank}.jsonl").open("a") as file:
        file.write(json.dumps(+Collectives.counts) + "\n")
    Collectives.counts.clear()
    _start(self, batch, batch_index)


def on_before_optimizer_step(self: DiffusionModule, optimizer: Optimizer) -> None:
    gradients = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
    torch.save(torch.cat(gradients), f"gradient-{self.global_rank}-{self.trainer.global_step}.pt")


if __name__ == "__main__":
    DiffusionModule.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]
    DiffusionModule.on_before_optimizer_step = on_before_optimizer_step  # type: ignore[method-assign, assignment]
    with Collectives():  # type: ignore[no-untyped-call]
        run_command(train.main, "config")
