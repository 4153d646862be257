"""Shots: where a clip cuts to another scene, and training windows that stay inside one shot.

Two frames differ by mean |a - b| over 8x8 thumbnails + a quarter of the distance between their
colour histograms (total variation; 4x4x4 bins, or 16 of grey). A cut is where that exceeds by 0.15
one and a half times the usual, the median of the four changes on either side: fast motion and
fades raise it.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ddpm_lightning.data.clip import ClipFormat, resize

ShotMode = Literal["any", "first", "longest", "within"]

_THRESHOLD = 0.15
_USUAL_GAIN = 1.5
_NEIGHBOURS = 4  # changes on either side
_HISTOGRAM_WEIGHT = 0.25
_HISTOGRAM_SIDE = 32  # pixels: larger frames are read at every second, third, ... pixel
_THUMBNAIL = ClipFormat(height=8, width=8, num_frames=1, fps=1)


def find_shots(clip: np.ndarray) -> tuple[int, ...]:
    """Return the first frame of every shot of a clip (N, H, W, C) uint8; the first of them is 0.

    Frames that repeat the one before count as no change at all: a clip sampled faster than its
    GIF moves would otherwise seem still between jumps. A flash of one frame is no cut.
    """
    moved = [0, *(k for k in range(1, len(clip)) if not np.array_equal(clip[k], clip[k - 1]))]
    features = _features(clip[moved])  # (M, D)
    change = np.abs(features[1:] - features[:-1]).sum(axis=1)  # [k] from frame k to k + 1
    across = np.abs(features[2:] - features[:-2]).sum(axis=1)  # [k] from frame k to k + 2
    lasting = change.copy()
    lasting[1:] = np.minimum(lasting[1:], across)  # different from the frame before the last
    lasting[:-1] = np.minimum(lasting[:-1], across)  # and different in the next one too
    candidates = np.flatnonzero(lasting > _THRESHOLD).tolist()
    cuts = [k for k in candidates if lasting[k] > _THRESHOLD + _USUAL_GAIN * _usual(change, k)]
    return 0, *(moved[k + 1] for k in cuts)


def _features(clip: np.ndarray) -> np.ndarray:
    """Return features (N, D) of frames, whose L1 distance is that of the frames, 0 to 1.25."""
    step = max(1, max(clip.shape[1:3]) // _HISTOGRAM_SIDE)
    sample = np.moveaxis(clip[:, ::step, ::step], -1, 0)  # (C, N, h, w)
    if len(sample) == 1:
        colours = sample[0] >> 4
        clip = clip.repeat(3, axis=-1)
    else:
        red, green, blue = sample >> 6
        colours = red << 4 | green << 2 | blue
    thumbnails = np.stack([resize(frame, _THUMBNAIL) for frame in clip]).reshape(len(clip), -1)
    shares = [
        np.bincount(frame, minlength=64) / frame.size for frame in colours.reshape(len(clip), -1)
    ]
    mean = thumbnails / (255 * thumbnails.shape[1])
    return np.hstack((mean, _HISTOGRAM_WEIGHT / 2 * np.stack(shares)))


def _usual(change: np.ndarray, k: int) -> float:
    """Return the median of the neighbours of change k; 0 where it has none."""
    first = max(0, k - _NEIGHBOURS)
    around = np.concatenate([change[first:k], change[k + 1 : k + 1 + _NEIGHBOURS]])
    return float(np.median(around)) if len(around) else 0.0


def choose_window(
    num_frames: int, length: int, shots: Sequence[int], mode: ShotMode, u: float
) -> tuple[int, int]:
    """Return the frames [start, stop) of a clip that a training window of num_frames takes.

    any: anywhere, cuts or not. first, longest: anywhere in that shot. within: anywhere that does
    not straddle a cut, every such window being equally likely; if no shot is long enough, the
    longest. The range is shorter than num_frames where the clip or the shot is: loop it.

    Args:
        length: of the clip in frames.   shots: as from find_shots.
        u: in [0, 1), uniform; it alone chooses among the allowed windows.
    """
    spans = list(zip(shots, [*shots[1:], length], strict=True))
    longest = max(spans, key=lambda span: span[1] - span[0])  # the first of several
    if mode == "any":
        spans = [(0, length)]
    elif mode == "first":
        spans = spans[:1]
    elif mode == "longest":
        spans = [longest]
    else:
        spans = [span for span in spans if span[1] - span[0] >= num_frames] or [longest]
    counts = [max(1, stop - start - num_frames + 1) for start, stop in spans]
    which = min(int(u * sum(counts)), sum(counts) - 1)
    while which >= counts[0]:
        which -= counts.pop(0)
        spans.pop(0)
    start = spans[0][0] + which
    return start, min(start + num_frames, spans[0][1])
