"""Animated pictures of clips: a grid of samples, and a film of the reverse process.

Both are GIF files with a shared palette, upscaled by whole pixels so that small clips can be looked
at.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid

from ddpm_lightning.data.gif import encode
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.walk import State

TILE_PIXELS = 128  # clips smaller than this are upscaled towards it
FILM_MS = 80  # one state of the reverse process


def frame_ms(fps: float) -> int:
    """How long a frame is shown: no less than 20 ms, which is as fast as browsers play GIFs."""
    return max(20, round(1000 / fps))


def grid_frames(clips: Tensor, columns: int) -> np.ndarray:
    """Clips uint8 (N, F, H, W, C), C = 1 or 3, side by side -> uint8 frames (F, H', W', 3)."""
    scale = max(1, TILE_PIXELS // max(clips.shape[2:4]))
    tiles = clips.cpu().permute(1, 0, 4, 2, 3)  # (F, N, C, H, W)
    tiles = tiles.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    grids = [make_grid(frame, nrow=columns, padding=4, pad_value=96) for frame in tiles]
    return torch.stack(grids).permute(0, 2, 3, 1).contiguous().numpy()


def save_grid(clips: Tensor, path: Path, fps: float, columns: int | None = None) -> Path:
    """Writes clips uint8 (N, F, H, W, C) as one animated GIF, as square a grid as N allows if the
    number of columns is None.
    """
    frames = grid_frames(clips, columns or int(np.ceil(len(clips) ** 0.5)))
    path.write_bytes(encode(frames, [frame_ms(fps)] * len(frames)))
    return path


def save_clips(clips: Tensor, directory: Path, fps: float) -> list[Path]:
    """Writes every clip uint8 (F, H, W, C) as a GIF of its own size: 0000.gif, 0001.gif, .."""
    paths = []
    for number, clip in enumerate(clips.cpu()):
        frames = clip.expand(*clip.shape[:-1], 3).contiguous().numpy()
        paths.append(directory / f"{number:04d}.gif")
        paths[-1].write_bytes(encode(frames, [frame_ms(fps)] * len(frames)))
    return paths


class ReverseFilm:
    """Records a sampler's states and shows them: x_t above, the estimate of x_0 below.

    x_t is divided by sqrt(alpha^2 + sigma^2) where that is above 1, so that bytes can show it.
    The clips play while noise turns into them, one frame a state, and go on playing at the end.

    Args:
        process: whose states they are.
        restore: makes bytes (B, F, H, W, C) of states (B, C, F, H, W).
    """

    def __init__(
        self, process: GaussianProcess, restore: Callable[[Tensor], Tensor], num_clips: int = 4
    ) -> None:
        self.process = process
        self.restore = restore
        self.num_clips = num_clips
        self._states: list[Tensor] = []  # uint8 (2 num_clips, F, H, W, C)

    def record(self, state: State) -> None:
        """A sampler's callback."""
        alpha, sigma, _ = self.process.level(state.t)
        x = state.x[: self.num_clips] / max(1.0, float(alpha.hypot(sigma)))
        pair = torch.cat([x, state.x_0[: self.num_clips]])
        self._states.append(self.restore(pair).cpu())

    def save(self, path: Path, fps: float) -> Path:
        """Writes the film as an animated GIF."""
        num_frames = self._states[0].shape[1]
        walk = [state[:, i % num_frames] for i, state in enumerate(self._states)]
        start = len(walk) % num_frames
        ending = [self._states[-1][:, (start + i) % num_frames] for i in range(3 * num_frames)]
        film = torch.stack(walk + ending, dim=1)
        frames = grid_frames(film, columns=film.shape[0] // 2)
        durations = [FILM_MS] * len(walk) + [frame_ms(fps)] * len(ending)
        path.write_bytes(encode(frames, durations))
        return path
