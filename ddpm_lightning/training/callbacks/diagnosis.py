"""After the first steps of a run: where their time went, and what to change."""

import logging
import math
import time
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from pydantic import Field
from tqdm import tqdm

from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.callbacks.samples import SampleGrid
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.loggers import log_text
from ddpm_lightning.training.text import labelled

DATA, LOGGING, VALIDATION = "data", "logging and the rest", "validation"
TOO_MUCH = 0.1  # of a step's time, for data and for logging
RARE, MODEST = 0.2, 0.05  # shares of what is done now and then: too much, and what to bring it to
# What is done now and then: how the names of its actions begin and end, and the option that says
# how often.
OCCASIONAL = {
    "samples": ("[Callback]SampleGrid", ".on_train_batch_end", "callbacks.samples.every_n_steps"),
    "checkpoints": ("save_checkpoint", "", "callbacks.checkpoints.every_n_steps"),
    VALIDATION: (VALIDATION, "", "trainer.val_check_interval"),
}

log = logging.getLogger(__name__)


class Stopwatch(SimpleProfiler):
    """Profiles actions as Lightning does, but waits for the work that they start on the device."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.waits = waits

    def stop(self, action_name: str) -> None:
        if self.waits and action_name.startswith(("[Strategy]", "[LightningModule]")):
            torch.accelerator.synchronize()
        super().stop(action_name)

    def seconds(self, start: str, end: str) -> list[float]:
        """Return how long each action took whose name begins and ends so; [0] for none."""
        durations = self.recorded_durations.items()
        each = [
            s for name, of in durations if name.startswith(start) and name.endswith(end) for s in of
        ]
        return each or [0.0]


class Diagnosis(pl.Callback):
    """Times steps with Lightning's profiler, unless the trainer has another, and logs once.

    Args:
        num_steps: after which it logs; the first tenth, which is slower, is left out.
    """

    def __init__(self, num_steps: Annotated[int, Field(ge=2)] = 100) -> None:
        self.num_steps = num_steps
        self._stopwatch: Stopwatch | None = None

    @pl.utilities.rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        first = trainer.global_step
        last = math.inf if trainer.max_steps == -1 else trainer.max_steps
        self._from = first + max(1, self.num_steps // 10)
        self._until = min(first + self.num_steps, last)

    @pl.utilities.rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        step = trainer.global_step
        if not is_between_steps(trainer):
            return
        own = isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
        if step == self._from < self._until and own:
            self._stopwatch = Stopwatch(waits=pl_module.device.type != "cpu")
            trainer.profiler = self._stopwatch  # type: ignore[attr-defined]
            self._started = time.perf_counter()
        elif step == self._until and self._stopwatch is not None:
            wall = time.perf_counter() - self._started
            report = diagnose(trainer, self._stopwatch, wall, step - self._from)
            self._put_away(trainer)
            with tqdm.external_write_mode():  # beside the progress bar
                log.info("%s", report)
            for logger in trainer.loggers:
                log_text(logger, "diagnosis", report, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_away(trainer)  # else Lightning would print all of it

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._stopwatch is not None:
            self._stopwatch.start(VALIDATION)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._stopwatch is not None:
            self._stopwatch.stop(VALIDATION)

    def _put_away(self, trainer: pl.Trainer) -> None:
        if self._stopwatch is not None:
            trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
            self._stopwatch = None


def diagnose(trainer: pl.Trainer, stopwatch: Stopwatch, wall: float, num_steps: int) -> str:
    """Return where the time of num_steps went, which took wall seconds in all, and what to change.

    What is done now and then is no part of a step: its share is that of a long run.
    """

    def total(start: str, end: str) -> float:
        return math.fsum(stopwatch.seconds(start, end))

    wall -= math.fsum(total(start, end) for start, end, _ in OCCASIONAL.values())
    forward, backward = total("[Strategy]", ".training_step"), total("[Strategy]", ".backward")
    update = total("[LightningModule]", ".optimizer_step") - forward - backward
    seconds = {
        DATA: total("", "train_dataloader_next") + total("[Strategy]", ".batch_to_device"),
        "forward": forward,
        "backward": backward,
        "optimizer and averages": update + total("[Callback]EMA", "_batch_end"),
    }
    seconds[LOGGING] = max(0.0, wall - sum(seconds.values()))
    shares = {name: part / wall for name, part in seconds.items()}
    step = wall / num_steps
    of_a_step = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    times, changes = [f"{step * 1e3:,.0f} ms a step: {of_a_step}"], []
    if (share := shares[DATA]) > TOO_MUCH:
        more = 2 * trainer.train_dataloader.num_workers or 2  # type: ignore[union-attr]
        changes.append(f"{share:.0%} of a step is waiting for data: data.num_workers={more}")
    if (share := shares[LOGGING]) > TOO_MUCH:
        every = 5 * int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
        changes.append(f"{share:.0%} of a step is logging: trainer.log_every_n_steps={every}")
    often = intervals(trainer)
    for name, (start, end, option) in OCCASIONAL.items():
        work = max(stopwatch.seconds(start, end))
        if work <= step:  # it would not be noticed, if it was done at all
            continue
        share = work / (work + often[name] * step)
        times.append(f"{name} {work:.2g} s, every {often[name]:,.0f} steps: {share:.1%}")
        if share > RARE:
            rarer = 100 * math.ceil(work / (MODEST * step) / 100)
            changes.append(f"{share:.0%} of the time goes to {name}: {option}={rarer}")
    return labelled(time="\n".join(times), change="\n".join(changes) or "nothing stands out")


def intervals(trainer: pl.Trainer) -> dict[str, float]:
    """Return how often each occasional work is done, in steps."""
    batches = trainer.val_check_batch or math.inf  # none where it goes by the clock
    steps = batches / trainer.accumulate_grad_batches
    often = {"samples": math.inf, "checkpoints": steps, VALIDATION: steps}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SampleGrid):
            often["samples"] = callback.every_n_steps
        if isinstance(callback, Checkpoints) and callback.every_n_steps:
            often["checkpoints"] = callback.every_n_steps
    return often
