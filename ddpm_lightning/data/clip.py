"""Clips: frames of a GIF at the training size and frame rate, and their form as tensors.

Defines ClipFormat (the size and rate), resample (GIF frames -> uint8 clip), to_float and to_uint8
(bytes <-> [-1, 1]). Clips are (N, H, W, C); what networks see is (C, F, H, W). Files, stores and
windows are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ddpm_lightning.data.gif_blocks import MAX_DELAY_CS, GifError

if TYPE_CHECKING:
    import torch  # which decoding needs nowhere: it would triple the memory of a decode worker

MAX_CLIP_FRAMES = 4096

_BAND_PIXELS = 2**20  # of the old image, as float32 at a time
_SPARE = 20  # floats after each row: rows of a power of two miss the cache when transposed
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Rec. 601, on coded values


@dataclass(frozen=True)
class ClipFormat:
    """The form of every clip in a run: pixels, frames per window, frames per second, 1 or 3."""

    height: int
    width: int
    num_frames: int
    fps: float
    channels: int = 3  # 1: grey, 3: red, green, blue

    def __post_init__(self) -> None:
        for name in ("height", "width", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        least = 100 / MAX_DELAY_CS  # of a GIF, which has to show the clip
        if not least <= self.fps < math.inf:
            raise ValueError(f"fps must be at least {least:.4g} and finite, got {self.fps}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape (C, F, H, W) of a clip."""
        return self.channels, self.num_frames, self.height, self.width


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size that is one number, for squares, or both. Raises ValueError."""
    both = [size, size] if isinstance(size, int) else list(size)
    if len(both) != 2:
        raise ValueError(f"size takes one number or [height, width], got {both}")
    return both[0], both[1]


def clip_format(
    size: int | list[int], num_frames: int, fps: float, channels: int, **_: Any
) -> ClipFormat:
    """The format that a data configuration's keys ask for; what else they hold is passed over."""
    return ClipFormat(*sides(size), num_frames, fps, channels)


def resample(
    frames: Iterable[tuple[np.ndarray, int]],
    clip_format: ClipFormat,
    max_frames: int = MAX_CLIP_FRAMES,
) -> np.ndarray:
    """Sample a GIF's own clock every 1/fps seconds, at the training size.

    The clip shows at index k the frame that the GIF shows at time k / fps, and has
    N = max(1, round(duration * fps)) frames. Frames that no such instant meets are not resized,
    and no more than one large frame is held at a time.

    Args:
        frames: at least one (frame (H, W, 3) uint8, duration_ms > 0), all of one size, as from
            gif.frames; or from gif.canvases, which is faster.
        max_frames: the longest clip allowed; it bounds the memory that a long delay can claim.
    Returns:
        (N, height, width, channels) uint8.
    Raises GifError too_long, and whatever frames raises.
    """
    clip: list[np.ndarray] = []
    elapsed_ms = 0
    for frame, duration_ms in frames:
        elapsed_ms += duration_ms
        shown_until = math.ceil(elapsed_ms * clip_format.fps / 1000)  # first k at or after the end
        if shown_until > max_frames:
            raise GifError(
                "too_long",
                f"over {max_frames} frames at {clip_format.fps:g} a second; lower the frame rate",
            )
        if shown_until > len(clip):
            small = resize(frame, clip_format)
            clip.extend([small] * (shown_until - len(clip)))
    return np.stack(clip[: max(1, round(elapsed_ms * clip_format.fps / 1000))])


def resize(frame: np.ndarray, clip_format: ClipFormat) -> np.ndarray:
    """Cover the box, keeping the aspect ratio, and cut the centre: (H, W, 3) -> (h, w, C) uint8.

    Every new pixel is the mean of the old image over the square it covers. For whole factors that
    is the block mean; enlarging, it is nearest neighbour with mixed edges. A fourth channel of the
    frame is ignored.
    """
    height, width, num_channels = frame.shape
    if (height, width, 3) == (clip_format.height, clip_format.width, clip_format.channels):
        return frame[..., :3].copy()
    scale = min(height / clip_format.height, width / clip_format.width)  # old pixels per new one
    (columns,) = _area_bands(width, clip_format.width, scale, 1)
    num_bands = min(clip_format.height, 1 + height * width // _BAND_PIXELS)
    length = columns.size * num_channels
    rows = np.empty((clip_format.height, length + _SPARE), dtype=np.float32)[:, :length]
    np.concatenate(
        [
            band.weights @ frame[band.old, columns.old].astype(np.float32).reshape(band.size, -1)
            for band in _area_bands(height, clip_format.height, scale, num_bands)
        ],
        out=rows,
    )
    narrow = rows.reshape(-1, columns.size, num_channels)[..., :3].transpose(1, 2, 0)  # (W, 3, h)
    small = columns.weights @ narrow.reshape(columns.size, -1)
    small = small.reshape(clip_format.width, 3, clip_format.height)
    if clip_format.channels == 1:
        small = np.einsum("c,wch->wh", _LUMA, small)[:, None]
    resized = np.rint(small).astype(np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(resized)


class _Band(NamedTuple):
    """Some new pixels are weights (new, size) @ the old pixels in a range of that size."""

    old: slice
    size: int
    weights: csr_array  # single-threaded, and each new pixel needs few of the old


@lru_cache(maxsize=64)
def _area_bands(old: int, new: int, scale: float, num_bands: int) -> list[_Band]:
    """The means over scale old pixels each, centred, as so many runs of new pixels."""
    edges = (old - new * scale) / 2 + scale * np.arange(new + 1)[:, None]
    pixels = np.arange(old)
    shares = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)  # (new, old)
    shares = np.maximum(shares, 0)
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    bands = []
    for part in np.array_split(shares, num_bands):
        used = np.flatnonzero(part.any(axis=0))
        covered = slice(used[0], used[-1] + 1)
        bands.append(_Band(covered, covered.stop - covered.start, csr_array(part[:, covered])))
    return bands


def to_float(clip: torch.Tensor) -> torch.Tensor:
    """uint8 (..., F, H, W, C) -> float32 (..., C, F, H, W) in [-1, 1]."""
    return clip.movedim(-1, -4).float() / 127.5 - 1


def to_uint8(clip: torch.Tensor) -> torch.Tensor:
    """Float (..., C, F, H, W) -> uint8 (..., F, H, W, C), clamped and rounded; undoes to_float."""
    return ((clip.float() + 1) * 127.5).round().clamp(0, 255).byte().movedim(-4, -1)
