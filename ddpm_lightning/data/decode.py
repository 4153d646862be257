"""One GIF, checked and decoded: its bytes to a clip at the training size and frame rate.

Defines Recipe (everything that determines the clip), Decoded (the clip and what is known about
it), decode for GIFs of a user's own and decode_fetched for those of strangers. Nothing here bounds
time: ingest.pool does.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ddpm_lightning.data import gif
from ddpm_lightning.data.clip import MAX_CLIP_FRAMES, ClipFormat, resample
from ddpm_lightning.data.gif_blocks import GifError, Limits, walk
from ddpm_lightning.data.shots import find_shots

FETCHED_LIMITS = Limits(max_pixels=400_000_000, max_frames=2_000, max_side=4096)

FACTS = ("sha256", "seconds", "shots", "width", "height", "gif_fps", "note")  # see Entry

_VERSION = 2  # raise it when the same GIF would give another clip or other shots
_FILTER = "area"
_MAX_CLIP_BYTES = 64 * 2**20  # a worker holds several copies


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
        identity = {"version": _VERSION, "filter": _FILTER} | asdict(self)
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


class Decoded(NamedTuple):
    """A GIF's clip and facts; shots are the frames of the clip at which a shot starts, 0 first."""

    clip: np.ndarray  # (N, height, width, channels) uint8
    seconds: float
    sha256: str  # of the file
    shots: tuple[int, ...]
    width: int  # of the GIF
    height: int
    num_gif_frames: int
    gif_fps: float  # on average
    note: str = ""  # see gif_blocks.Structure

    def facts(self) -> dict[str, Any]:
        """Return what a store keeps of it beside the clip, by the names of FACTS."""
        return {name: getattr(self, name) for name in FACTS}


def decode(data: bytes, recipe: Recipe, max_frames: int = MAX_CLIP_FRAMES) -> Decoded:
    """Check a GIF file and make a clip of all of it.

    Args:
        max_frames: a GIF that would give a longer clip is too_long.
    Raises:
        GifError: for what walk and canvases refuse, and too_short, too_long.
    """
    structure = walk(data, recipe.limits)
    seconds = sum(image.duration_ms for image in structure.images) / 1000
    if seconds < (recipe.min_seconds or 0):
        raise GifError("too_short", f"{seconds:g} s, wanted at least {recipe.min_seconds:g}")
    if seconds > (recipe.max_seconds or math.inf):
        raise GifError("too_long", f"{seconds:g} s, wanted at most {recipe.max_seconds:g}")
    clip = resample(gif.canvases(structure), recipe.clip_format, max_frames)
    return Decoded(
        clip=clip,
        seconds=seconds,
        sha256=hashlib.sha256(data).hexdigest(),
        shots=find_shots(clip),
        width=structure.width,
        height=structure.height,
        num_gif_frames=len(structure.images),
        gif_fps=len(structure.images) / seconds,
        note=structure.note,
    )


def decode_fetched(data: bytes, recipe: Recipe) -> Decoded:
    """Decode a GIF from the network: it must fit into a worker's memory, and move.

    Raises:
        GifError: for what decode refuses, too_long for clips of more than 64 MiB, and still.
    """
    frame_bytes = recipe.height * recipe.width * recipe.channels
    decoded = decode(data, recipe, min(MAX_CLIP_FRAMES, max(1, _MAX_CLIP_BYTES // frame_bytes)))
    if (decoded.clip == decoded.clip[0]).all():
        raise GifError("still", f"{decoded.num_gif_frames} images, which all show the same")
    return decoded
