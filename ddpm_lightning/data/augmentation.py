"""Augmentation: changes of training samples that multiply the clips there are.

Each change has an amount in [-1, 1], a share of the most that is allowed; 0 is none. The amounts
are known of a sample, so that a network that is trained with condition=augmentation learns what
clips are like without any (non-leaky augmentation: Karras et al. 2020, 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Amounts(NamedTuple):
    """flip is 0 or 1, speed that of Windows; down and right of the shift; zoom makes larger."""

    flip: float = 0.0
    speed: float = 0.0
    down: float = 0.0
    right: float = 0.0
    zoom: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """Changes all frames of a clip alike.

    Args:
        flip: mirror half of the samples, left to right.
        fps_jitter: j plays a clip up to 1 + j times faster or slower.
        shift: up to so large a share of height and of width, in both directions; edges are
            mirrored.
        zoom: z makes a clip up to 1 + z times larger or smaller.
    """

    flip: bool = False
    fps_jitter: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0

    def amounts(self, draws: Sequence[float]) -> Amounts:
        """Return how much of each change a sample gets, by draws in [0, 1), one for each."""
        flip, *others = draws
        signed = (2 * draw - 1 for draw in others)
        allowed = (self.fps_jitter, self.shift, self.shift, self.zoom)
        return Amounts(
            float(self.flip and flip < 0.5),
            *(float(amount) if most else 0.0 for amount, most in zip(signed, allowed, strict=True)),
        )

    def speed(self, amounts: Amounts) -> float:
        """Return how many times faster the clip is played."""
        return float((1 + self.fps_jitter) ** amounts.speed)

    def apply(self, clip: Tensor, amounts: Amounts) -> Tensor:
        """Return a clip, uint8 (F, H, W, C), with all changes but that of speed; the clip itself
        where there are none.
        """
        if amounts.flip:
            clip = clip.flip(-2)  # NumPy takes ten times as long
        scale = (1 + self.zoom) ** amounts.zoom
        right, down = 2 * self.shift * amounts.right, 2 * self.shift * amounts.down
        if (scale, right, down) == (1, 0, 0):
            return clip
        # In coordinates from -1 to 1, a new pixel at x shows what was at (x - right) / scale.
        matrix = torch.tensor([[1.0, 0.0, -right], [0.0, 1.0, -down]]) / scale
        frames = clip.movedim(-1, 1)  # (F, C, H, W)
        # All frames and channels are channels of one image.
        image = frames.flatten(0, 1)[None].float()
        grid = F.affine_grid(matrix[None], list(image.shape), align_corners=False)
        moved = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
        return moved[0].round().byte().view(frames.shape).movedim(1, -1)


NO_AUGMENTATION = Augmentation()
