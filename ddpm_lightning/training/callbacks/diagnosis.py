"""After the first steps of a run: where their time went, and what to change."""

import logging
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from tqdm import tqdm

from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.callbacks.samples import SampleGrid
from ddpm_lightning.training.loggers import log_text
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.text import labelled

DATA, LOGGING = "data", "logging and the rest"
TOO_MUCH = {DATA: 0.1, LOGGING: 0.1}  # of a step's time
RARE, MODEST = 0.2, 0.05  # shares of what is done now and then: too much, and what to bring it to
LITTLE_MEMORY = 0.4  # of a GPU

log = logging.getLogger(__name__)


class Occasional(NamedTuple):
    """Work that is done every `every` steps and takes `seconds`; the option sets how often."""

    seconds: float
    every: float
    option: str


class Measured(NamedTuple):
    """The seconds of a step, without occasional work, and the shares of its parts."""

    seconds: float
    shares: dict[str, float]
    occasional: dict[str, Occasional]

    def share(self, name: str) -> float:
        """Return the share of a long run's time that goes to occasional work."""
        work = self.occasional[name]
        return work.seconds / (work.seconds + work.every * self.seconds)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        lines = [f"{self.seconds * 1e3:,.0f} ms a step: {shares}"]
        for name, work in self.occasional.items():
            how_often = f"every {work.every:,.0f} steps: {self.share(name):.1%}"
            lines.append(f"{name} {work.seconds:.2g} s, {how_often}")
        return "\n".join(lines)


class Stopwatch(SimpleProfiler):
    """Profiles actions as Lightning does, but waits for the work that they start on the device."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.waits = waits

    def stop(self, action_name: str) -> None:
        if self.waits and action_name.startswith(("[Strategy]", "[LightningModule]")):
            torch.accelerator.synchronize()
        super().stop(action_name)

    def total(self, start: str, end: str) -> float:
        """Return the seconds of all actions whose names begin and end so."""
        return math.fsum(s for s, _ in self._matching(start, end))

    def longest(self, start: str, end: str) -> float:
        """Return the seconds of the longest of these actions; 0 if there are none."""
        return max((s for _, s in self._matching(start, end)), default=0.0)

    def _matching(self, start: str, end: str) -> Iterator[tuple[float, float]]:
        for name, durations in self.recorded_durations.items():
            if name.startswith(start) and name.endswith(end):
                yield math.fsum(durations), max(durations)


class Diagnosis(pl.Callback):
    """Times steps with Lightning's profiler, unless the trainer has another, and logs once.

    Args:
        num_steps: after which it logs; the first tenth, which is slower, is left out.
    """

    def __init__(self, num_steps: int = 100) -> None:
        if num_steps < 2:
            raise ValueError(
                f"num_steps must be at least 2, got {num_steps}; ~callbacks.diagnosis times none"
            )
        self.num_steps = num_steps
        self._stopwatch: Stopwatch | None = None

    @pl.utilities.rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        first = trainer.global_step
        self._from = first + max(1, self.num_steps // 10)
        self._until = first + self.num_steps
        if trainer.max_steps != -1:
            self._until = min(self._until, trainer.max_steps)
        self._last_step = first
        self._validations: list[float] = []

    @pl.utilities.rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        step = trainer.global_step
        if step > self._until or step == self._last_step:  # logged, or gradients still accumulate
            return
        self._last_step = step
        own = isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
        if step == self._from and own:
            self._stopwatch = Stopwatch(waits=pl_module.device.type != "cpu")
            trainer.profiler = self._stopwatch  # type: ignore[attr-defined]
            self._started = time.perf_counter()
        elif step == self._until and self._stopwatch is not None:
            assert isinstance(pl_module, DiffusionModule)
            measured = self._measured(trainer, self._stopwatch)
            self._put_away(trainer)
            advice = "\n".join(changes(measured, trainer, pl_module)) or "nothing stands out"
            report = labelled(time=str(measured), change=advice)
            with tqdm.external_write_mode():  # beside the progress bar
                log.info("%s", report)
            for logger in trainer.loggers:
                log_text(logger, "diagnosis", report, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_away(trainer)  # else Lightning would print all of it

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._stopwatch is not None:
            self._validations.append(time.perf_counter() - self._validation_started)

    def _put_away(self, trainer: pl.Trainer) -> None:
        if self._stopwatch is not None:
            trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
            self._stopwatch = None

    def _measured(self, trainer: pl.Trainer, stopwatch: Stopwatch) -> Measured:
        wall = time.perf_counter() - self._started
        drawing = stopwatch.total("[Callback]SampleGrid", ".on_train_batch_end")
        saving = stopwatch.total("save_checkpoint", "")
        forward = stopwatch.total("[Strategy]", ".training_step")
        backward = stopwatch.total("[Strategy]", ".backward")
        within = stopwatch.total("[LightningModule]", ".optimizer_step") - forward - backward
        wall -= drawing + saving + math.fsum(self._validations)
        seconds = {
            DATA: stopwatch.total("", "train_dataloader_next")
            + stopwatch.total("[Strategy]", ".batch_to_device"),
            "forward": forward,
            "backward": backward,
            "optimizer and averages": within + stopwatch.total("[Callback]EMA", "_batch_end"),
        }
        seconds[LOGGING] = max(0.0, wall - sum(seconds.values()))
        shares = {name: part / wall for name, part in seconds.items()}
        each = wall / (self._until - self._from)
        longest = {
            "samples": stopwatch.longest("[Callback]SampleGrid", ".on_train_batch_end"),
            "checkpoints": stopwatch.longest("save_checkpoint", ""),
            "validation": max(self._validations, default=0.0),
        }
        occasional = {
            name: Occasional(longest[name], *how)
            for name, how in intervals(trainer).items()
            if longest[name] > each  # less would not be noticed, if it was done at all
        }
        return Measured(each, shares, occasional)


def intervals(trainer: pl.Trainer) -> dict[str, tuple[float, str]]:
    """Return how often each work is done, in steps, and by which option."""
    often: dict[str, tuple[float, str]] = {}
    batches = trainer.val_check_batch or math.inf  # none where it goes by the clock
    steps = batches / trainer.accumulate_grad_batches
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SampleGrid):
            often["samples"] = (callback.every_n_steps, "callbacks.samples.every_n_steps")
        if isinstance(callback, Checkpoints):
            every = callback.every_n_steps or steps
            often["checkpoints"] = (every, "callbacks.checkpoints.every_n_steps")
    often["validation"] = (steps, "trainer.val_check_interval")
    return often


def changes(measured: Measured, trainer: pl.Trainer, module: DiffusionModule) -> Iterator[str]:
    """Yield a line for each part of a run that costs more time than it should."""
    loader, device = trainer.train_dataloader, module.device
    if measured.shares[DATA] > TOO_MUCH[DATA]:
        assert loader is not None
        more = 2 * loader.num_workers or 2
        yield f"{measured.shares[DATA]:.0%} of a step is waiting for data: data.num_workers={more}"
    if measured.shares[LOGGING] > TOO_MUCH[LOGGING]:
        every = 5 * int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
        share = measured.shares[LOGGING]
        yield f"{share:.0%} of a step is logging: trainer.log_every_n_steps={every}"
    for name, each in measured.occasional.items():
        if measured.share(name) > RARE:
            rarer = round_up(each.seconds / (MODEST * measured.seconds))
            yield f"{measured.share(name):.0%} of the time goes to {name}: {each.option}={rarer}"
    if device.type == "cpu" and torch.cuda.is_available():
        yield "a GPU is idle: trainer=gpu"
    if device.type == "cuda":
        has_half = torch.cuda.is_bf16_supported(including_emulation=False)
        if has_half and str(trainer.precision).startswith("32"):
            yield "the network computes in float32: trainer.precision=bf16-mixed"
        used = torch.cuda.max_memory_allocated(device) / torch.cuda.mem_get_info(device)[1]
        if used < LITTLE_MEMORY:
            yield f"{used:.0%} of the GPU's memory is used: data.batch_size=auto tries more clips"


def round_up(steps: float) -> int:
    """Return steps rounded up to 1, 2 or 5 times a power of ten."""
    unit = 1
    while True:
        for factor in (1, 2, 5):
            if factor * unit >= steps:
                return factor * unit
        unit *= 10
