"""Pictures of clips of one frame, as PNGs: without the palette and the dither of a GIF."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import encode_png

from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.plots.films import grid_frames


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


def write_png(picture: Tensor, path: Path) -> Path:
    """Write uint8 (H, W, C), C = 1 or 3."""
    data = bytes(encode_png(picture.permute(2, 0, 1).contiguous()).numpy())
    write_file(path, [data], len(data))
    return path
