"""Small clips whose features are known."""

import torch
from torch import Tensor


def noise_clips(
    num_clips: int, num_frames: int = 4, size: int = 16, channels: int = 3, seed: int = 0
) -> Tensor:
    """Clips (N, F, size, size, C) uint8 of independent values."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_clips, num_frames, size, size, channels)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
