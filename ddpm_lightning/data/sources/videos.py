"""A folder of videos, which FFmpeg reads through PyAV: MP4, WebM and other containers."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from itertools import chain, pairwise

import av
import numpy as np

from ddpm_lightning.data.animation import Animation
from ddpm_lightning.data.gif_blocks import GifError, Limits
from ddpm_lightning.data.sources.folder import FileFolder


class VideoFolder(FileFolder):
    """The video files of a folder: the first video track of each."""

    suffixes = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
    limits = Limits(max_bytes=2**30, max_pixels=10**10, max_frames=100_000)

    def open(self, data: bytes, limits: Limits) -> Animation:
        return read_video(data, limits)


def read_video(data: bytes, limits: Limits, container_format: str | None = None) -> Animation:
    """Return what a video shows: each frame from its own time stamp to the next. Raises GifError.

    Args:
        container_format: FFmpeg's name for it; None to recognise it.
    """
    with _refusal(), av.open(BytesIO(data), "r", container_format) as container:
        track = container.streams.video[0]
        width, height, unit_ms = track.width, track.height, 1000 * (track.time_base or Fraction(1))
        spans = sorted(
            (packet.pts, packet.pts + (packet.duration or 1))
            for packet in container.demux(track)
            if packet.pts is not None and not packet.is_discard
        )
        stamps = [*(start for start, _ in spans), spans[-1][1]]
    num_frames = len(spans)
    if num_frames > limits.max_frames or num_frames * width * height > limits.max_pixels:
        raise GifError("too_large", f"{num_frames} frames of {width}x{height} pixels")
    times_ms = [round(unit_ms * (stamp - stamps[0])) for stamp in stamps]
    if not times_ms[-1]:
        raise GifError("still", f"{num_frames} images, which last less than a millisecond")
    durations_ms = [stop - start for start, stop in pairwise(times_ms)]
    frames = _frames(data, durations_ms, container_format)
    first = next(frames)  # which alone says how it is turned
    height, width = first[0].shape[:2]
    return Animation(width, height, num_frames, times_ms[-1] / 1000, chain([first], frames))


def _frames(
    data: bytes, durations_ms: list[int], container_format: str | None
) -> Iterator[tuple[np.ndarray, int]]:
    with _refusal(), av.open(BytesIO(data), "r", container_format) as container:
        # strict: as many as were announced
        for frame, ms in zip(container.decode(video=0), durations_ms, strict=True):
            # as telephones store it: degrees against the clock
            yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)), ms


@contextmanager
def _refusal() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # PyAV raises many kinds, some of them not its own
        raise GifError("corrupt", f"FFmpeg cannot read it ({type(error).__name__})") from error
