"""GIFs that really animate in W&B and TensorBoard: both are handed the file's own bytes. And a
metrics.csv that goes on when its run does.
"""

import csv
import struct
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only


def log_gif(logger: Logger, tag: str, path: Path, step: int) -> None:
    """Shows a GIF file under `tag` in a dashboard; loggers without pictures are passed over."""
    if isinstance(logger, WandbLogger):
        # A path, not an array: arrays go through moviepy, and floats in [0, 1] come out black.
        logger.log_video(tag, [str(path)], step=step, format=["gif"])
    elif isinstance(logger, TensorBoardLogger):
        # As an image summary's bytes: add_video needs moviepy 1 and logs nothing, silently, with 2.
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = path.read_bytes()
        width, height = struct.unpack("<HH", data[6:10])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        logger.experiment._get_file_writer().add_summary(summary, step)


class MetricsTable(CSVLogger):
    """metrics.csv in a run directory; Lightning's own logger would delete the one that is there.

    Args:
        first_step: what an earlier start logged from this step on is dropped: it comes again.
    """

    def __init__(self, directory: Path, first_step: int, flush_logs_every_n_steps: int) -> None:
        super().__init__(directory, "", "", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._earlier = _rows_before(first_step, directory / "metrics.csv")

    @rank_zero_only
    def save(self) -> None:
        if self._earlier:
            writer = self.experiment
            writer.metrics[:0] = self._earlier
            self._earlier = []
        super().save()


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
