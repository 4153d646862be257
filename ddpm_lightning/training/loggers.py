"""Loggers: W&B that cannot stop a run, a metrics.csv that is resumed with its run, and pictures and
text in both dashboards.

GIFs are animated there: W&B and TensorBoard receive the file's own bytes.
"""

import logging
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from os.path import relpath
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ddpm_lightning.plots.curves import read_rows

log = logging.getLogger(__name__)

# silent: the end of the run says where it is; seconds that its start, and its end, may take.
_SETTINGS = MappingProxyType({"silent": True, "init_timeout": 30, "finish_timeout": 60})
Mode = Literal["online", "offline", "disabled"]


def mode_of_environment() -> Any:
    """Return the mode that a user's shell exports, as W&B's callers read it; offline for none."""
    if os.getenv("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return "disabled"
    return os.getenv("WANDB_MODE") or "offline"


class WandbRun(WandbLogger):
    """Logs to a run of W&B, which cannot end the run: one warning logs why it fails.

    It is offline where there is no key or no server at the start, and logs nothing more where its
    process is killed later.

    Args:
        mode: online sends what is logged at once, offline keeps it for `wandb sync`; None: what
            WANDB_DISABLED and WANDB_MODE say, or offline.
        settings: of wandb.Settings.
        options: of WandbLogger and wandb.init; project None: what WANDB_PROJECT says.
    """

    def __init__(
        self,
        mode: Mode | None = None,
        settings: Mapping[str, Any] = _SETTINGS,
        **options: Any,
    ) -> None:
        options["project"] = options.get("project") or os.getenv("WANDB_PROJECT", "ddpm_lightning")
        mode = mode or mode_of_environment()
        super().__init__(mode=mode, settings={**settings, "finish_timeout_raises": True}, **options)
        del self._wandb_init["anonymous"]  # W&B warns of it, whatever it is

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            import wandb

            try:
                self._begin()
            except wandb.Error as error:
                if self._wandb_init["mode"] != "online":
                    raise ValueError(error) from error
                self._fail("is offline", "offline", error)
                self._begin()
        return self._experiment

    def _begin(self) -> None:
        import wandb

        wandb.setup(wandb.Settings(**self._wandb_init["settings"]))
        is_online = self._wandb_init["mode"] == "online"
        if is_online and not wandb.login(prompt=False, verify=False):
            raise wandb.errors.UsageError("no API key is stored; wandb login stores one")
        self._experiment = super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        import wandb

        try:
            super().log_metrics(metrics, step)
        except (wandb.Error, ConnectionError, TimeoutError) as error:  # all else is not hidden
            self._fail("logs nothing more, metrics.csv has all", "disabled", error)

    def _fail(self, consequence: str, mode: Mode, cause: Exception) -> None:
        log.warning("W&B %s: %s", consequence, " ".join(str(cause).split()))
        self._experiment = None
        self._wandb_init["mode"] = mode
        tear_down_wandb()


def tear_down_wandb() -> None:
    """Remove what W&B leaves after a failure: it would keep another run from beginning."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()
    wandb.run = None


@contextmanager
def finished_wandb() -> Iterator[None]:
    """Finish W&B's run, else two jobs of a sweep would be one run; log what was not sent."""
    code = 1
    try:
        yield
        code = 0
    finally:
        wandb: Any = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            directory = quote(relpath(Path(wandb.run.dir).parent))
            is_offline = wandb.run.offline
            try:
                wandb.finish(exit_code=code)
            except Exception as error:  # nothing else happens by now that it could hide
                cause = str(error).rstrip(".")
                log.warning("W&B: %s; send the rest with: wandb sync %s", cause, directory)
                tear_down_wandb()
            if code and is_offline:
                log.info("W&B (offline): send what there is with: wandb sync %s", directory)


def log_picture(trainer: pl.Trainer, tag: str, path: Path) -> None:
    """Log a GIF or PNG file to the dashboards; loggers without pictures do not receive it."""
    is_gif, step = path.suffix == ".gif", trainer.global_step
    for logger in trainer.loggers:
        # A path, not an array: arrays go through moviepy, and floats in [0, 1] come out black.
        if isinstance(logger, WandbLogger) and is_gif:
            logger.log_video(tag, [str(path)], step=step, format=["gif"])
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            # As bytes of an image: add_video needs moviepy 1 and logs nothing, silently, with 2.
            from tensorboard.compat.proto.summary_pb2 import Summary

            data = path.read_bytes()
            width, height = (
                struct.unpack("<HH", data[6:10]) if is_gif else struct.unpack(">II", data[16:24])
            )
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=data
            )
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            logger.experiment.file_writer.add_summary(summary, step)


def log_text(logger: Logger, tag: str, text: str, step: int) -> None:
    """Log text, unformatted, under TensorBoard's Text; W&B has files for that."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(tag, f"```\n{text}\n```", step)


def log_file(logger: Logger, path: Path, directory: Path) -> None:
    """Keep a file below the run directory among W&B's files of the run, as it is at the end."""
    if isinstance(logger, WandbLogger) and path.exists():
        logger.experiment.save(str(path), base_path=str(directory), policy="end")


class MetricsTable(CSVLogger):
    """Writes metrics.csv in a run directory; Lightning's own logger would delete an earlier one.

    Args:
        first_step: from which on an earlier start's rows are dropped: they are logged again.
    """

    def __init__(self, directory: Path, first_step: int, flush_logs_every_n_steps: int) -> None:
        super().__init__(directory, "", "", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._first_step, self._path = first_step, directory / "metrics.csv"

    @cached_property
    def _earlier(self) -> list[dict[str, Any]]:
        """Rows of earlier starts: read when the run's directory is locked, not before."""
        return [row for row in read_rows(self._path) if int(row["step"]) < self._first_step]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            earlier = self._earlier
            super().experiment.metrics[:0] = earlier  # a new writer removes the file
        return super().experiment

    def has(self, step: int) -> bool:
        """Return whether an earlier start has logged this step."""
        return any(int(row["step"]) == step for row in self._earlier)


def log_once(loggers: list[Logger], metrics: Mapping[str, float], step: int) -> None:
    """Log to all of them, unless the table, which is written last, has that step already."""
    tables = [logger for logger in loggers if isinstance(logger, MetricsTable)]
    if not any(table.has(step) for table in tables):
        for logger in loggers:
            logger.log_metrics(dict(metrics), step)
            logger.save()
