"""Attention along time: each pixel's F frames attend to one another, with rotary positions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_lightning.networks.blocks import EPS, by_blocks
from ddpm_lightning.networks.rotary import rotated, rotation
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
    y = F.rms_norm(x, x.shape[-1:], eps=EPS).to(dtype)
    weight = torch.stack([query, key, value]).flatten(0, 2)
    tokens = F.linear(y, weight.to(dtype)).unflatten(-1, (3, *query.shape[:2]))
    q, k, v = tokens.permute(3, 0, 2, 4, 1, 5)  # (B, M, heads, F, d)
    cos, sin = rotation(q.shape[-2], q.shape[-1], x.device)
    q, k = rotated(q, cos.to(dtype), sin.to(dtype)), rotated(k, cos.to(dtype), sin.to(dtype))
    out = F.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2, 4).flatten(-2)
    return x + F.linear(out, exit_weight.to(dtype), bias.to(dtype))
