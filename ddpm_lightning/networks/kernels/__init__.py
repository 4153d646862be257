"""Operations of layers that devices need by hand: one function each, which picks the kernel.

plain.py defines them. A compiler takes the definitions, and fuses them. Eagerly every operator is
a launch: eager.py has the same in fewer, with gradients by hand. The weights of a network that
runs eagerly in half precision are cast in one pass, see precision.py.
"""

import torch
from torch import Tensor

from ddpm_lightning.networks.kernels import eager, plain

FEW = 256  # rows up to which a CPU writes the weights of attention out, faster than fused kernels


def by_definition() -> bool:
    """Return whether operations are computed as defined: by a compiler."""
    return torch.compiler.is_compiling()


def scaled_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return SiLU(x scale + shift).

    Args:
        x: (B, n, H, W, C).   scale, shift: (B, 1, 1, 1, C).
    """
    return (
        plain.scaled_silu(x, scale, shift)
        if by_definition()
        else eager.scaled_silu(x, scale, shift)
    )


def stacked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return weights (heads, d, C) of queries, keys and values as (heads, 3, d, C)."""
    return plain.stacked(query, key, value) if by_definition() else eager.stacked(query, key, value)


def turned(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys, rotated by their frames' angles, and values: (B, F, P, d) each.

    Args:
        tokens: (B, F, P, 3, d), queries, keys and values of P pixels or heads of pixels.
    """
    return plain.turned(tokens) if by_definition() else eager.turned(tokens)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v for (N, heads, M, d)."""
    is_short = q.device.type == "cpu" and q.shape[2] <= FEW and not by_definition()
    return plain.attention(q, k, v) if is_short else eager.attention(q, k, v)
