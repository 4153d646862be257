"""The one way from a file's bytes to a clip at the training size and frame rate.

Defines Recipe (everything that determines the clip, limits included), Decoded (the clip and its
facts) and decode, for files of a user's own and of strangers alike. A Reader knows the file's
format. Nothing here bounds time: ingest.pool does.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ddpm_lightning.data.animation import Animation
from ddpm_lightning.data.clip import MAX_CLIP_FRAMES, ClipFormat, resample
from ddpm_lightning.data.gif import read_gif
from ddpm_lightning.data.gif_blocks import DEFAULT_LIMITS, GifError, Limits
from ddpm_lightning.data.shots import find_shots

Reader = Callable[[bytes, Limits], Animation]

FETCHED_LIMITS = Limits(
    max_pixels=400_000_000,
    max_frames=2_000,
    max_side=4096,
    max_clip_bytes=64 * 2**20,  # a worker holds several copies
    min_pictures=2,
)

_VERSION = 2  # raise it when the same GIF would give another clip or other shots
_FILTER = "area"


@dataclass(frozen=True)
class Recipe:
    """Determines the form of all clips of a store, and which GIFs enter it.

    Args:
        height, width, fps, channels: see ClipFormat.
        min_seconds, max_seconds: GIFs that last less, or more, are refused; None: no bound.
        limits: GIFs that claim more are refused before anything is decoded.
    Raises:
        ValueError: for sizes and rates that cannot be.
    """

    height: int
    width: int
    fps: float
    channels: int = 3
    min_seconds: float | None = None
    max_seconds: float | None = None
    limits: Limits = FETCHED_LIMITS

    def __post_init__(self) -> None:
        _ = self.clip_format  # refuses what a size or rate cannot be
        object.__setattr__(self, "fps", float(self.fps))  # 10 and 10.0 are one cache
        for name in ("min_seconds", "max_seconds"):
            seconds = getattr(self, name)
            object.__setattr__(self, name, None if seconds is None else float(seconds))

    @property
    def clip_format(self) -> ClipFormat:
        """Return the format for one frame: clips keep all of theirs."""
        return ClipFormat(self.height, self.width, 1, self.fps, self.channels)

    def digest(self) -> str:
        """Return 16 hexadecimal digits that differ between recipes, to name the store."""
        identity: dict[str, Any] = {"version": _VERSION, "filter": _FILTER} | asdict(self)
        if self.limits in (DEFAULT_LIMITS, FETCHED_LIMITS):  # of stores older than these two keys
            del identity["limits"]["max_clip_bytes"], identity["limits"]["min_pictures"]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


class Decoded(NamedTuple):
    """A file's clip and the facts that a store keeps of it, named as in shards.Entry."""

    clip: np.ndarray  # (N, height, width, channels) uint8
    sha256: str  # of the file
    seconds: float
    shots: tuple[int, ...]  # frames of the clip at which a shot starts, 0 first
    width: int  # of the file's frames
    height: int
    gif_fps: float  # of the file, on average
    note: str = ""  # see Animation

    def facts(self) -> dict[str, Any]:
        """Return all but the clip."""
        facts = self._asdict()
        del facts["clip"]
        return facts

    @property
    def num_gif_frames(self) -> int:
        return round(self.gif_fps * self.seconds)


def decode(data: bytes, recipe: Recipe, read: Reader = read_gif) -> Decoded:
    """Check a file and make a clip of all of it.

    Args:
        read: for the file's format.
    Raises:
        GifError: for what read refuses, and too_short, too_long, still.
    """
    animation = read(data, recipe.limits)
    seconds = animation.seconds
    if seconds < (recipe.min_seconds or 0):
        raise GifError("too_short", f"{seconds:g} s, wanted at least {recipe.min_seconds:g}")
    if seconds > (recipe.max_seconds or math.inf):
        raise GifError("too_long", f"{seconds:g} s, wanted at most {recipe.max_seconds:g}")
    frame_bytes = recipe.height * recipe.width * recipe.channels
    max_frames = min(MAX_CLIP_FRAMES, max(1, recipe.limits.max_clip_bytes // frame_bytes))
    clip = resample(animation.frames, recipe.clip_format, max_frames)
    least = recipe.limits.min_pictures
    if least > 1 and 1 + sum(not np.array_equal(a, b) for a, b in pairwise(clip)) < least:
        raise GifError("still", f"{animation.num_frames} images, which all show the same")
    return Decoded(
        clip=clip,
        sha256=hashlib.sha256(data).hexdigest(),
        seconds=seconds,
        shots=find_shots(clip),
        width=animation.width,
        height=animation.height,
        gif_fps=animation.num_frames / seconds,
        note=animation.note,
    )
