"""Rotary positions (Su et al. 2021): frame f turns pairs of channels by the angles f theta_i."""

import torch
from torch import Tensor


def rotation(num_frames: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (F, width / 2) of the angles f theta_i."""
    theta = 100 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None] * theta
    return angle.cos(), angle.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of neighbouring channels by the frames' angles, so that products of channels
    depend on the distance in time alone.
    """
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
