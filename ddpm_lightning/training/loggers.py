"""GIFs that really animate in W&B and TensorBoard: both are handed the file's own bytes."""

import struct
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger


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
