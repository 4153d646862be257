"""Rotary positions (Su et al. 2021): frame f turns pairs of channels by the angles f theta_i."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


class Turned(torch.autograd.Function):
    """`rotated` for tokens (P, F, kinds, heads, d): x cos + (x with neighbours exchanged) sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _turned(x, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _turned(gradient, back=True)


def _turned(x: Tensor, back: bool) -> Tensor:
    compute = factors if torch.compiler.is_compiling() else kept_factors
    cos, sin = compute(x.shape[1], x.shape[-1], x.device, x.dtype, back)
    exchanged = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, exchanged, sin)


def factors(
    num_frames: int, width: int, device: torch.device, dtype: torch.dtype, back: bool
) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines (F, 1, 1, d) for each channel; of the way back, if asked."""
    cos, sin = rotation(num_frames, width, device)
    sin = torch.stack([sin, -sin] if back else [-sin, sin], dim=-1)
    cos, sin = cos.repeat_interleave(2, dim=-1), sin.flatten(-2)
    return cos.to(dtype)[:, None, None], sin.to(dtype)[:, None, None]


kept_factors = cache(factors)
