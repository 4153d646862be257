"""After the first steps of a run: where their time went, and what to change."""

import logging
import math
import time
from collections.abc import Iterator
from itertools import count
from typing import Annotated, Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from pydantic import Field
from tqdm import tqdm

from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.callbacks.samples import SampleGrid
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.loggers import log_text
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.text import labelled

DATA, LOGGING, VALIDATION = "data", "logging and the rest", "validation"
TOO_MUCH = 0.1  # of a step's time, for data and for logging
RARE, MODEST = 0.2, 0.05  # shares of what is done now and then: too much, and what to bring it to
LITTLE_MEMORY = 0.4  # of a GPU
# What is done now and then: how the names of its actions begin and end, and the option that says
# how often.
OCCASIONAL = {
    "samples": ("[Callback]SampleGrid", ".on_train_batch_end", "callbacks.samples.every_n_steps"),
    "checkpoints": ("save_checkpoint", "", "callbacks.checkpoints.every_n_steps"),
    VALIDATION: (VALIDATION, "", "trainer.val_check_interval"),
}

log = logging.getLogger(__name__)


class Occasional(NamedTuple):
    """Work that is done every `every` steps and takes `seconds`."""

    seconds: float
    every: float


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
            assert isinstance(pl_module, DiffusionModule)
            wall = time.perf_counter() - self._started
            measured = measure(trainer, self._stopwatch, wall, step - self._from)
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
        if self._stopwatch is not None:
            self._stopwatch.start(VALIDATION)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._stopwatch is not None:
            self._stopwatch.stop(VALIDATION)

    def _put_away(self, trainer: pl.Trainer) -> None:
        if self._stopwatch is not None:
            trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
            self._stopwatch = None


def measure(trainer: pl.Trainer, stopwatch: Stopwatch, wall: float, num_steps: int) -> Measured:
    """Return where the time of num_steps went, which took wall seconds in all."""
    rare = {name: stopwatch.seconds(*where[:2]) for name, where in OCCASIONAL.items()}
    wall -= sum(map(math.fsum, rare.values()))

    def total(start: str, end: str) -> float:
        return math.fsum(stopwatch.seconds(start, end))

    forward, backward = total("[Strategy]", ".training_step"), total("[Strategy]", ".backward")
    within = total("[LightningModule]", ".optimizer_step") - forward - backward
    seconds = {
        DATA: total("", "train_dataloader_next") + total("[Strategy]", ".batch_to_device"),
        "forward": forward,
        "backward": backward,
        "optimizer and averages": within + total("[Callback]EMA", "_batch_end"),
    }
    seconds[LOGGING] = max(0.0, wall - sum(seconds.values()))
    each = wall / num_steps
    often = intervals(trainer)
    return Measured(
        each,
        {name: part / wall for name, part in seconds.items()},
        # What takes less than a step would not be noticed, if it was done at all.
        {n: Occasional(max(s), often[n]) for n, s in rare.items() if max(s) > each},
    )


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


def changes(measured: Measured, trainer: pl.Trainer, module: DiffusionModule) -> Iterator[str]:
    """Yield a line for each part of a run that costs more time than it should."""
    loader, device, shares = trainer.train_dataloader, module.device, measured.shares
    if shares[DATA] > TOO_MUCH:
        assert loader is not None
        more = 2 * loader.num_workers or 2
        yield f"{shares[DATA]:.0%} of a step is waiting for data: data.num_workers={more}"
    if shares[LOGGING] > TOO_MUCH:
        every = 5 * int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
        yield f"{shares[LOGGING]:.0%} of a step is logging: trainer.log_every_n_steps={every}"
    for name, each in measured.occasional.items():
        if measured.share(name) > RARE:
            rarer = round_up(each.seconds / (MODEST * measured.seconds))
            option = OCCASIONAL[name][-1]
            yield f"{measured.share(name):.0%} of the time goes to {name}: {option}={rarer}"
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
    round_numbers = (factor * int(10**n) for n in count() for factor in (1, 2, 5))
    return next(number for number in round_numbers if number >= steps)
