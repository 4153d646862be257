"""Attention along time: each pixel's F frames attend to one another, with rotary positions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_lightning.networks.blocks import EPS, by_blocks, fused_attention
from ddpm_lightning.networks.rotary import Turned
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
    """temporal_attention in single operators."""
    dtype = x.dtype
    y = F.rms_norm(x.transpose(1, 2).contiguous(), x.shape[-1:], eps=EPS).to(dtype)
    weight = torch.cat([w.flatten(0, 1) for w in (query, key, value)])
    tokens = F.linear(y, weight.to(dtype)).unflatten(-1, (3, *query.shape[:2])).flatten(0, 1)
    turning, v = tokens.split([2, 1], dim=2)  # (B M, F, 2, heads, d): queries and keys
    q, k = Turned.apply(turning).unbind(2)
    mixed = fused_attention(*(t.transpose(1, 2) for t in (q, k, v.squeeze(2))))
    out = F.linear(
        mixed.transpose(1, 2).flatten(2), exit_weight.to(dtype), bias.to(dtype)
    ).unflatten(0, y.shape[:2])
    output: Tensor = x + out.transpose(1, 2)
    return output
