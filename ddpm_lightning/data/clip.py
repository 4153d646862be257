"""Clips: frames of a GIF at the training size and frame rate, and their form as tensors.

Defines ClipFormat (the size and rate), resample (GIF frames -> uint8 clip), loop and window
(clips of any length -> a fixed length), to_float and to_uint8 (bytes <-> [-1, 1]). Clips are
(N, H, W, C); what networks see is (C, F, H, W). Files and caches are not known here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ddpm_lightning.data.gif_blocks import GifError

MAX_CLIP_FRAMES = 4096

_LUMA = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)  # Rec. 601, on coded values


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
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be positive and finite, got {self.fps}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")


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
        frames: at least one (frame (H, W, 3) uint8, duration_ms > 0), all of one size.
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
    is the block mean; enlarging, it is nearest neighbour with mixed edges.
    """
    height, width, _ = frame.shape
    scale = min(height / clip_format.height, width / clip_format.width)  # old pixels per new one
    # einsum rather than @: products this small lose more to threads than they gain.
    cells, weights = _area_weights(height, clip_format.height, scale)
    rows = np.einsum("hk,hkxc->hxc", weights, frame[cells])  # (h, W, 3)
    cells, weights = _area_weights(width, clip_format.width, scale)
    small = np.einsum("wk,hwkc->hwc", weights, rows[:, cells])  # (h, w, 3)
    if clip_format.channels == 1:
        small = small @ _LUMA
    resized: np.ndarray = np.rint(small).astype(np.uint8)
    return np.ascontiguousarray(resized)


@lru_cache(maxsize=64)
def _area_weights(old: int, new: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which old pixels (new, K) each new pixel, scale old ones long, covers, and their shares."""
    edges = (old - new * scale) / 2 + scale * np.arange(new + 1)[:, None]
    cells = np.floor(edges[:-1]).astype(np.int64) + np.arange(math.ceil(scale) + 1)
    overlap = np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells)
    shares = np.maximum(overlap, 0)
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return np.clip(cells, 0, old - 1), shares


def loop(clip: np.ndarray, num_frames: int) -> np.ndarray:
    """The clip itself if it is long enough, else the clip played again from its start."""
    if len(clip) >= num_frames:
        return clip
    return clip[np.arange(num_frames) % len(clip)]


def window(clip: np.ndarray, num_frames: int, start: int | None = None) -> np.ndarray:
    """num_frames frames (num_frames, H, W, C) from start on, or from the middle for None.

    A clip shorter than num_frames is looped first. Raises ValueError for a start outside.
    """
    clip = loop(clip, num_frames)
    last = len(clip) - num_frames
    if start is None:
        start = last // 2
    if not 0 <= start <= last:
        raise ValueError(f"start must lie in [0, {last}] for {num_frames} frames, got {start}")
    return clip[start : start + num_frames]


def to_float(clip: torch.Tensor) -> torch.Tensor:
    """uint8 (..., F, H, W, C) -> float32 (..., C, F, H, W) in [-1, 1]."""
    return clip.movedim(-1, -4).float() / 127.5 - 1


def to_uint8(clip: torch.Tensor) -> torch.Tensor:
    """Float (..., C, F, H, W) -> uint8 (..., F, H, W, C), clamped and rounded; undoes to_float."""
    return ((clip.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(-4, -1)
