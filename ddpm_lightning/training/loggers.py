"""W&B that cannot stop a run, a metrics.csv that goes on when its run does, and what Lightning's
loggers have no word for: pictures and text in both dashboards.

GIFs really animate: W&B and TensorBoard are handed the file's own bytes.
"""

import csv
import logging
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os.path import relpath
from pathlib import Path
from shlex import quote
from shutil import rmtree
from types import MappingProxyType
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


# silent: the end of the run says where it is; seconds that its start, and its end, may take.
_SETTINGS = MappingProxyType({"silent": True, "init_timeout": 30, "finish_timeout": 60})


class WandbRun(WandbLogger):
    """A run of W&B that goes on offline, under its id, where W&B fails: its server cannot be
    reached, there is no key, its process was killed. One warning says so.

    Args:
        mode: online sends what is logged at once, offline keeps it for `wandb sync`.
        settings: of wandb.Settings.
        options: of WandbLogger and wandb.init.
    """

    def __init__(
        self,
        mode: Literal["online", "offline", "disabled"] = "offline",
        settings: Mapping[str, Any] = _SETTINGS,
        **options: Any,
    ) -> None:
        super().__init__(mode=mode, settings={**settings, "finish_timeout_raises": True}, **options)
        del self._wandb_init["anonymous"]  # W&B warns of it, whatever it is

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            import wandb

            before = self._folders()
            try:
                self._begin()
            except wandb.Error as error:
                if self._wandb_init["mode"] != "online":
                    raise ValueError(error) from error
                self._go_offline(error)
                for folder in self._folders() - before:  # wandb sync would take it for a run
                    rmtree(folder, ignore_errors=True)
                self._begin()
        return self._experiment

    def _folders(self) -> set[Path]:
        """Of starts of this run with a server."""
        return set(Path(self._wandb_init["dir"], "wandb").glob(f"run-*-{self._wandb_init['id']}"))

    def _begin(self) -> None:
        import wandb

        wandb.setup(wandb.Settings(**self._wandb_init["settings"]))
        is_online = self._wandb_init["mode"] == "online"
        if is_online and not wandb.login(prompt=False, verify=False):
            raise wandb.errors.UsageError("no API key is stored; wandb login stores one")
        self._experiment = super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        super().log_hyperparams(params)
        self._wandb_init["config"] = params  # should it begin again

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        try:
            super().log_metrics(metrics, step)
        except failures() as error:
            self._go_offline(error)
            super().log_metrics(metrics, step)

    def _go_offline(self, cause: object) -> None:
        log.warning("W&B goes on offline: %s", " ".join(str(cause).split()))
        self._experiment = None
        self._wandb_init["mode"] = "offline"
        torn_down()


def failures() -> tuple[type[Exception], ...]:
    """What W&B raises when its process or its server is gone; all else is not for it to hide."""
    import wandb
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    own = (wandb.Error, HandleAbandonedError, MailboxClosedError)
    return *own, ConnectionError, TimeoutError


def torn_down() -> None:
    """What W&B has left after a failure would keep another run from beginning."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()
    wandb.run = None


@contextmanager
def finished_wandb() -> Iterator[None]:
    """Ends W&B's run, else two jobs of a sweep would become one. What was not sent is told."""
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
                torn_down()
            if code and is_offline:
                log.info("W&B (offline): send what there is with: wandb sync %s", directory)


def log_picture(logger: Logger, tag: str, path: Path, step: int) -> None:
    """Shows a GIF or PNG file in a dashboard; loggers without pictures are passed over."""
    is_gif = path.suffix == ".gif"
    if isinstance(logger, WandbLogger):
        # A path, not an array: arrays go through moviepy, and floats in [0, 1] come out black.
        if is_gif:
            logger.log_video(tag, [str(path)], step=step, format=["gif"])
        else:
            logger.log_image(tag, [str(path)], step=step)
    elif isinstance(logger, TensorBoardLogger):
        # As an image summary's bytes: add_video needs moviepy 1 and logs nothing, silently, with 2.
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = path.read_bytes()
        width, height = (
            struct.unpack("<HH", data[6:10]) if is_gif else struct.unpack(">II", data[16:24])
        )
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        logger.experiment._get_file_writer().add_summary(summary, step)


def log_text(logger: Logger, tag: str, text: str, step: int) -> None:
    """Shows text as it stands under TensorBoard's Text; W&B has files for that."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(tag, f"```\n{text}\n```", step)


def log_file(logger: Logger, path: Path, directory: Path) -> None:
    """Keeps a file below the run directory among W&B's files of the run, as it is at the end."""
    if isinstance(logger, WandbLogger) and path.exists():
        logger.experiment.save(str(path), base_path=str(directory), policy="end")


class MetricsTable(CSVLogger):
    """metrics.csv in a run directory; Lightning's own logger would delete the one that is there.

    Args:
        first_step: what an earlier start logged from this step on is dropped: it comes again.
    """

    def __init__(self, directory: Path, first_step: int, flush_logs_every_n_steps: int) -> None:
        super().__init__(directory, "", "", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._earlier = _rows_before(first_step, directory / "metrics.csv")
        self._earlier_steps = {int(row["step"]) for row in self._earlier}

    def has(self, step: int) -> bool:
        """Whether an earlier start has logged this one."""
        return step in self._earlier_steps

    @rank_zero_only
    def save(self) -> None:
        if self._earlier:
            writer = self.experiment
            writer.metrics[:0] = self._earlier
            self._earlier = []
        super().save()


def log_once(loggers: list[Logger], metrics: Mapping[str, float], step: int) -> None:
    """To all of them, unless the table has that step from an earlier start: it comes last."""
    tables = [logger for logger in loggers if isinstance(logger, MetricsTable)]
    if not any(table.has(step) for table in tables):
        for logger in loggers:
            logger.log_metrics(dict(metrics), step)
            logger.save()


def _rows_before(first_step: int, path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = [
            {k: v for k, v in row.items() if v} for row in csv.DictReader(file)
        ]
    # A row that was being written when the process was killed has no step, or no end.
    whole = [row for row in rows if row.get("step", "").isdigit() and None not in row]
    return [row for row in whole if int(row["step"]) < first_step]
