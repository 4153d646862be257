"""Animation: what a reader makes of a file, whatever its format, before any frame is decoded."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Animation(NamedTuple):
    """A file's facts, and its frames, which are decoded when they are asked for.

    frames yields (frame (height, width, 3 or 4) uint8, duration_ms) num_frames times, and raises
    GifError where one does not decode. A fourth channel is ignored; the next frame may be painted
    into the same array.
    """

    width: int
    height: int
    num_frames: int
    seconds: float
    frames: Iterator[tuple[np.ndarray, int]]
    note: str = ""  # what is odd about a file that is taken all the same
