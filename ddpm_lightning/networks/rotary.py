"""Rotary positions (Su et al. 2021): frame f turns pairs of channels by the angles f theta_i."""

from functools import cache, lru_cache

import torch
from torch import Tensor


def rotation(num_frames: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (F, width / 2) of the angles f theta_i."""
    theta = 100 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None] * theta
    return angle.cos(), angle.sin()


@cache
def rotors(num_frames: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Complex numbers (F, width / 2) that turn by `rotation`, and back."""
    rotor = torch.complex(*rotation(num_frames, width, device))
    return rotor, rotor.conj().resolve_conj()


def rotated(x: Tensor, cos: Tensor, sin: Tensor, axis: int = -1) -> Tensor:
    """Turns pairs of neighbours on `axis` < 0 by the frames' angles, so that products of channels
    depend on the distance in time alone.
    """
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], axis).flatten(axis - 1, axis)


def turn(x: Tensor, rotor: Tensor) -> None:
    """`rotated` for x (.., F, d) in place: a product of complex numbers, rotor (F, d / 2)."""
    whole = x.float()
    torch.view_as_complex(whole.unflatten(-1, (-1, 2))).mul_(rotor)
    if whole is not x:
        x.copy_(whole)


def turns(num_frames: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return matrices (F, 3 d, 3 d) from whose right side a frame's query, key and value, side by
    side, are `rotated`, the value by nothing: one product where pairs of channels take three
    operators on all tokens, and three more for the gradient.
    """
    cos, sin = rotation(num_frames, width, device)
    one = torch.eye(width, device=device)
    turn = rotated(one[:, None], cos, sin).transpose(0, 1)  # (F, d, d)
    blocks = [turn, turn, one.expand_as(turn)]
    return torch.stack([torch.block_diag(*each) for each in zip(*blocks, strict=True)]).to(dtype)


@lru_cache(maxsize=8)
def kept_turns(
    num_clips: int, num_frames: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the matrices of `turns` for each frame of a batch: (B F, 3 d, 3 d)."""
    with torch.inference_mode(False):
        return turns(num_frames, width, device, dtype).repeat(num_clips, 1, 1)
