"""Pictures of clips of one frame, as PNGs: without the palette and the dither of a GIF."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.io import encode_png

from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.plots.films import grid_frames

TILE_PIXELS = 48  # frames in a row that are smaller are enlarged towards it
GAP = 6  # pixels between rows, and between what stands side by side


def save_still_grid(clips: Tensor, path: Path, columns: int | None = None) -> Path:
    """Write clips uint8 (N, 1, H, W, C) side by side, small ones enlarged, as one PNG; as square a
    grid as N allows if the number of columns is None.
    """
    (frame,) = grid_frames(clips, columns or int(np.ceil(len(clips) ** 0.5)))
    return write_png(torch.from_numpy(frame), path)


def save_stills(clips: Tensor, directory: Path) -> list[Path]:
    """Write every clip uint8 (1, H, W, C) as a PNG of its own size: 0000.png, 0001.png, .."""
    return [
        write_png(still, directory / f"{number:04d}.png")
        for number, (still,) in enumerate(clips.cpu())
    ]


def strip(clip: Tensor) -> Tensor:
    """Return the frames of a clip (F, H, W, C) uint8 in a row, small ones enlarged, (H', W', 3)."""
    scale = max(1, TILE_PIXELS // clip.shape[1])
    frames = clip.expand(*clip.shape[:-1], 3)
    frames = frames.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    row = frames.transpose(0, 1).flatten(1, 2)  # (H', F W', 3)
    return pad(row, (0, 0, 0, GAP, 0, GAP), value=96)


def write_png(picture: Tensor, path: Path) -> Path:
    """Write uint8 (H, W, C), C = 1 or 3."""
    data = bytes(encode_png(picture.permute(2, 0, 1).contiguous()).numpy())
    write_file(path, [data], len(data))
    return path
