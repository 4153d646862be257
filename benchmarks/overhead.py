"""What checkpoints, averages, guards and metrics cost: steps of the default model with and without.

python -m benchmarks.overhead FOLDER [NUM_STEPS]
"""

import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir

from ddpm_lightning.run.cli import CONF
from ddpm_lightning.run.config import resolved
from ddpm_lightning.run.train import build, build_trainer, quiet

WITHOUT = ("ema", "numerics", "checkpoints", "throughput", "learning_rate", "progress", "schedule")
WITHOUT += ("diagnosis",)
NUM_ROUNDS = 4


class Clock(pl.Callback):
    """Seconds from one step to the next, but for the first ones."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.times.append(time.perf_counter())

    def seconds_per_step(self) -> float:
        kept = self.times[10:]
        return (kept[-1] - kept[0]) / (len(kept) - 1)


def seconds_per_step(folder: Path, num_steps: int, bare: bool) -> float:
    words = [f"run_dir={folder}", f"outputs_dir={folder}", "logger=csv", "~callbacks.samples"]
    words += [f"trainer.max_steps={num_steps}", "trainer.precision=32-true", "run_name=overhead"]
    words += [f"~callbacks.{name}" for name in WITHOUT] if bare else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolved(compose("config", words))
    pl.seed_everything(0, verbose=False)
    data, module = build(config)
    trainer = build_trainer(config, folder)
    clock = Clock()
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    trainer.limit_val_batches = 0
    if bare:
        trainer.loggers = []
    trainer.fit(module, datamodule=data)
    assert trainer.train_dataloader is not None
    trainer.train_dataloader.close()
    return clock.seconds_per_step()


def main() -> None:
    folder, num_steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 600
    torch.set_num_threads(1)
    quiet()
    print("round  bare ms  with all ms  ratio")
    ratios = []
    for number in range(NUM_ROUNDS):
        bare = seconds_per_step(folder / f"bare{number}", num_steps, bare=True)
        full = seconds_per_step(folder / f"full{number}", num_steps, bare=False)
        ratios.append(full / bare)
        print(f"{number:5}  {bare * 1e3:7.2f}  {full * 1e3:11.2f}  {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {sorted(ratios)[NUM_ROUNDS // 2]:.3f}")


if __name__ == "__main__":
    main()
