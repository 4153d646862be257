"""Operations in few launches, with gradients by hand, for devices that run them one by one."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.rotary import rotated, rotation

GRID = 2**16 - 1  # clips, or heads, that the fused kernels of attention take at a time


class _ScaledSiLU(torch.autograd.Function):
    """Takes six operators with its gradient, where autograd takes ten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        activation = torch.addcmul(shift, x, scale)
        ctx.save_for_backward(x, scale, activation)
        return F.silu(activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, activation = ctx.saved_tensors
        both = gradient.new_empty((2, *x.shape))  # to be summed in one pass
        g = torch.ops.aten.silu_backward.grad_input(gradient, activation, grad_input=both[1])
        torch.mul(g, x, out=both[0])
        of_scale, of_shift = both.sum((2, 3, 4), keepdim=True)
        return g * scale, of_scale, of_shift


class _Stacked(torch.autograd.Function):
    """Makes three dense tensors of the gradient in one copy, where autograd takes three."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        return torch.stack(weights, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient.transpose(0, 1).contiguous().unbind()


def scaled_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    output: Tensor = _ScaledSiLU.apply(x, scale, shift)
    return output


def stacked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    output: Tensor = _Stacked.apply(query, key, value)
    return output


def turned(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply once by a table that is kept, where pairs of channels take three operators on all
    tokens, and three more for the gradient.
    """
    clips, num_frames, _, _, width = tokens.shape
    table = turns(clips, num_frames, width, tokens.device, tokens.dtype)
    q, k, v = torch.bmm(tokens.flatten(3).flatten(0, 1), table).view(tokens.shape).unbind(3)
    return q, k, v


@lru_cache(maxsize=8)
def turns(
    num_clips: int, num_frames: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return matrices (B F, 3 d, 3 d) that rotate a frame's query and key, side by side with its
    value, which they leave as it is.
    """
    with torch.inference_mode(False):
        cos, sin = rotation(num_frames, width, device)
        one = torch.eye(width, device=device)
        turn = rotated(one[:, None], cos, sin).transpose(0, 1)  # (F, d, d)
        blocks = zip(turn, turn, one.expand_as(turn), strict=True)
        table = torch.stack([torch.block_diag(*each) for each in blocks])
        return table.to(dtype).repeat(num_clips, 1, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute by torch's fused kernels, which take four axes, the last one dense."""
    if torch.compiler.is_exporting():  # for any number of clips
        return F.scaled_dot_product_attention(q, k, v)
    longer = int(q.shape[1] > q.shape[0])
    if q.shape[longer] <= GRID:
        return F.scaled_dot_product_attention(q, k, v)
    parts = zip(*(t.split(GRID, longer) for t in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], longer)
