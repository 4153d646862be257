"""Attention along time: each pixel's F frames attend to one another, with rotary positions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.blocks import EPS, by_blocks, fused_attention
from ddpm_lightning.networks.rotary import kept_turns, turns
from ddpm_lightning.networks.softmax_attention import softmax_attention


def temporal_attention(
    x: Tensor, query: Tensor, key: Tensor, value: Tensor, exit_weight: Tensor, bias: Tensor
) -> Tensor:
    """x + attention of each pixel's frames to one another, on x / rms(x).

    Args:
        x: (B, F, M, C), M pixels.
        query, key, value: (heads, d, C).   exit_weight: (C, heads d).   bias: (C,).
    """
    if not by_blocks(x):
        return plain_temporal_attention(x, query, key, value, exit_weight, bias)
    return softmax_attention(x, query, key, value, exit_weight, bias, rotary=True)


def plain_temporal_attention(
    x: Tensor, query: Tensor, key: Tensor, value: Tensor, exit_weight: Tensor, bias: Tensor
) -> Tensor:
    """temporal_attention in single operators.

    A head of a pixel takes the place of a head: nothing is copied for the sake of its layout.
    """
    dtype, (clips, num_frames, num_pixels, _), (heads, width, _) = x.dtype, x.shape, query.shape
    y = F.rms_norm(x, x.shape[-1:], eps=EPS).to(dtype)
    weight = _SideBySide.apply(query, key, value).flatten(0, 2)
    tokens = F.linear(y, weight.to(dtype)).view(clips * num_frames, num_pixels * heads, 3 * width)
    if torch.compiler.is_compiling():
        turning = turns(num_frames, width, x.device, dtype).repeat(clips, 1, 1)
    else:
        turning = kept_turns(clips, num_frames, width, x.device, dtype)
    turned = torch.bmm(tokens, turning).view(clips, num_frames, -1, 3, width)
    out = fused_attention(*(t.transpose(1, 2) for t in turned.unbind(3)))  # (B, M heads, F, d)
    out = out.transpose(1, 2).reshape(*x.shape[:3], -1)
    return x + F.linear(out, exit_weight.to(dtype), bias.to(dtype))


class _SideBySide(torch.autograd.Function):
    """A head's weights for query, key and value side by side: three (heads, d, C) to (heads, 3, d,
    C). Of the gradient one copy makes three dense tensors, where autograd would make three copies.
    """

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        return torch.stack(weights, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient.transpose(0, 1).contiguous().unbind()
