"""Known answers for moving digits: does one digit stay itself, keep its speed and bounce at walls?

The data's law is known (data/sources/moving_digits.py), so no network that stands for taste is
needed. A frame's position is the centre of mass of what is brighter than the background; lengths
are in pixels of the 32-pixel canvas, whatever the size of the clips.

A still, foreign blob agrees with itself, keeps its speed and obeys the law: these measures see how
clips move, and features what they show.
"""

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm_lightning.data.clip import ClipFormat, resize
from ddpm_lightning.data.sources.moving_digits import CANVAS, DIGIT, FRAME_MS, SPEED, draw_digit
from ddpm_lightning.likelihood.base import mean_and_error

if TYPE_CHECKING:
    from sklearn.svm import SVC

_MIN_SIZE = 16  # below it a digit is fewer than 10 pixels wide
_BACKGROUND = 32  # of 255: what is darker has no weight
_SPAN = CANVAS - DIGIT  # of a digit's way, in pixels
_STEP = 0.25  # pixels between the paths that are tried
_BATCH = 32


def agreement(clips: Tensor) -> tuple[float, float]:
    """Return the probability that two frames of a clip show the same digit; 1 of the data.

    A support vector machine tells what digit a frame shows. The second number is the standard
    error over clips (N, F, H, W, C) uint8, as in all these functions.
    """
    shown = read_digits(clips)
    same = shown[:, :, None] == shown[:, None]  # (N, F, F)
    num_frames = shown.shape[1]
    pairs = same.double().sum((1, 2)) - num_frames
    return mean_and_error(pairs / (num_frames * (num_frames - 1)))


def read_as(clips: Tensor, digits: Tensor) -> tuple[float, float]:
    """Return the share of clips that most of their frames show as these digits (N,)."""
    return mean_and_error((read_digits(clips).mode(1).values == digits).double())


def read_digits(clips: Tensor) -> Tensor:
    """Return the digit that each frame shows (N, F)."""
    frames, size = _grey(clips)
    shown = torch.from_numpy(_classifier(size).predict(_patches(frames.flatten(0, 1)).numpy()))
    return shown.view(frames.shape[:2])


def speed_deviation(clips: Tensor, fps: float) -> tuple[float, float]:
    """Return how far a digit's speed is from constant, in pixels a frame; near 0 of the data.

    It is the median over a clip's steps of | |v| - median |v| |, of which few bounces change
    nothing, averaged over rows and columns.
    """
    _check_fps(fps)
    speed = digit_positions(clips).diff(dim=1).abs()  # (N, F - 1, 2)
    deviation = (speed - speed.median(1, keepdim=True).values).abs().median(1).values
    return mean_and_error(deviation.mean(1))


def bounce_error(clips: Tensor, fps: float) -> tuple[float, float]:
    """Return how far a digit is from the nearest path that bounces at the walls, in pixels.

    Paths are triangle waves of the data's span and of at most its speed, at a digit's distance from
    the walls; the value is the root mean square over a clip's frames. Near 0 of the data.
    """
    _check_fps(fps)
    positions = digit_positions(clips)
    num_frames = positions.shape[1]
    fastest = SPEED[1] * 1000 / FRAME_MS / fps  # pixels a frame
    velocity = torch.linspace(0, fastest, ceil(fastest * num_frames / _STEP) + 1).double()
    phase = torch.arange(0, 2 * _SPAN, _STEP).double()
    way = phase[:, None, None] + velocity[:, None] * torch.arange(num_frames)  # (P, V, F)
    waves = (_SPAN - ((way % (2 * _SPAN)) - _SPAN).abs()).flatten(0, 1)  # (P * V, F)
    nearest, furthest = _centres()
    squares = []
    for batch in positions.split(_BATCH):
        gap = batch.mT[:, :, None] - waves  # (B, 2, P * V, F)
        centre = gap.mean(-1, keepdim=True)
        centre = torch.minimum(torch.maximum(centre, nearest.view(2, 1, 1)), furthest.view(2, 1, 1))
        squares.append((gap - centre).square().mean(-1).amin(-1).mean(1))
    return mean_and_error(torch.cat(squares).sqrt())


def _grey(clips: Tensor) -> tuple[Tensor, int]:
    """Return clips without colours, (N, F, S, S) float32 on the CPU, and their size S."""
    height, width = clips.shape[2:4]
    if height != width or height < _MIN_SIZE:
        raise ValueError(
            f"moving digits are square and at least {_MIN_SIZE} pixels a side, got {height} x "
            f"{width}; train with data.size={_MIN_SIZE} or more"
        )
    return clips.cpu().float().mean(-1), height


def _check_fps(fps: float) -> None:
    native = 1000 / FRAME_MS
    if native % fps:
        raise ValueError(
            f"the motion of moving digits is known at {native:g} frames a second and its whole "
            f"fractions, got fps={fps:g}; train with data.fps={native:g}"
        )


def _weights(frames: Tensor) -> Tensor:
    return (frames - _BACKGROUND).clamp(min=0)


def _centre_of_mass(frames: Tensor) -> Tensor:
    """Return row and column (..., 2) of frames (..., S, S), from 0 to 1; a black one's middle."""
    weights = _weights(frames).double() + 1e-9
    places = (torch.arange(frames.shape[-1]).double() + 0.5) / frames.shape[-1]
    row, column = ((weights.sum(axis) * places).sum(-1) for axis in (-1, -2))
    return torch.stack([row, column], -1) / weights.sum((-2, -1))[..., None]


def digit_positions(clips: Tensor) -> Tensor:
    """Return row and column (N, F, 2) of each frame's digit, in pixels of the canvas."""
    return CANVAS * _centre_of_mass(_grey(clips)[0])


def _patches(frames: Tensor) -> Tensor:
    """Return the digit of each frame (B, S, S) as 12 x 12 values around its centre, (B, 144)."""
    centre = 2 * _centre_of_mass(frames).float() - 1  # (B, 2), as grid_sample counts
    span = (torch.arange(12) - 5.5) / 6 * DIGIT / CANVAS
    rows, columns = (centre[:, axis, None] + span for axis in (0, 1))  # (B, 12)
    grid = torch.stack([columns[:, None].expand(-1, 12, -1), rows[..., None].expand(-1, -1, 12)], 3)
    patches = F.grid_sample(frames[:, None], grid, align_corners=False)
    return patches.flatten(1) / 255


@lru_cache(maxsize=4)
def _classifier(size: int) -> "SVC":
    """Fit on every digit of the data at three places."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    digits = load_digits()
    generator = np.random.default_rng(0)
    clip_format = ClipFormat(size, size, 1, fps=1, channels=1)
    frames = [
        resize(np.repeat(canvas[..., None], 3, axis=-1), clip_format)[..., 0]
        for image in digits.images
        for canvas in draw_digit(image, *generator.uniform(0, _SPAN, (2, 3)))
    ]
    patches = _patches(torch.from_numpy(np.stack(frames)).float())
    return SVC(C=10).fit(patches.numpy(), np.repeat(digits.target, 3))


@lru_cache(maxsize=1)
def _centres() -> tuple[Tensor, Tensor]:
    """Return the least and greatest row and column (2,) of the centre of a digit in the corner."""
    from sklearn.datasets import load_digits

    corner = np.zeros(1)
    images = load_digits().images
    canvases = np.stack([draw_digit(image, corner, corner)[0] for image in images])
    centres = CANVAS * _centre_of_mass(torch.from_numpy(canvases).float())
    return centres.amin(0), centres.amax(0)
