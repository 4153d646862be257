"""Linear attention within frames (Shen et al. 2021), re-associated so that no value is made.

    y = x / rms(x);   k = softmax over positions of y W_k;   q = softmax over a head of y W_q
    out = x + sum over heads of q_h (k_h' v_h) W_out,h + b,   v_h = y W_v,h

With k_h' v_h = (k_h' y) W_v,h, taken first, and (k_h' v_h) W_out,h, taken before q, heads never
leave their place side by side: the positions meet two products with (C, heads x d) matrices.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.blocks import (
    EPS,
    by_blocks,
    normalised,
    normalised_gradient,
    product,
    spans,
    weight_gradient,
)


def linear_attention(
    x: Tensor, query: Tensor, key: Tensor, value: Tensor, exit_weight: Tensor, bias: Tensor
) -> Tensor:
    """x + attention of each frame's positions to one another.

    Args:
        x: (N, M, C), M positions.
        query, key, value: (heads, d, C).   exit_weight: (heads, d, C).   bias: (C,).
    """
    arguments = (x, query, key, value, exit_weight, bias)
    if by_blocks(x):
        output: Tensor = LinearAttention.apply(*arguments, torch.is_grad_enabled())
        return output
    return plain_linear_attention(*arguments)


def plain_linear_attention(
    x: Tensor, query: Tensor, key: Tensor, value: Tensor, exit_weight: Tensor, bias: Tensor
) -> Tensor:
    """linear_attention in single operators."""
    dtype = x.dtype
    y = torch.nn.functional.rms_norm(x, x.shape[-1:], eps=EPS).to(dtype)
    q = torch.nn.functional.linear(y, query.flatten(0, 1).to(dtype))
    k = torch.nn.functional.linear(y, key.flatten(0, 1).to(dtype))  # (N, M, heads d)
    q = q.unflatten(-1, query.shape[:2]).softmax(-1).flatten(-2).to(dtype)
    k = k.softmax(1).to(dtype)
    context = (k.transpose(1, 2) @ y).unflatten(1, query.shape[:2])  # (N, heads, d, C)
    context = context @ value.transpose(1, 2).to(dtype) @ exit_weight.to(dtype)
    return torch.baddbmm((x + bias.to(dtype)), q, context.flatten(1, 2))


class Made(NamedTuple):
    """What the gradient of a block of n frames needs, in the order in which it is made."""

    y: Tensor  # (n, M, C)
    reciprocal: Tensor  # (n, M, 1)
    k: Tensor  # (n, M, heads d)
    pooled: Tensor  # (n, heads, d, C), k' y
    context: Tensor  # (n, heads, d, d), k' v
    mixed: Tensor  # (n, heads d, C), what q spreads
    q: Tensor  # (n, M, heads d)


class LinearAttention(torch.autograd.Function):
    """linear_attention on a CPU, by blocks of frames; saves what it makes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        exit_weight: Tensor,
        bias: Tensor,
        saves: bool,
    ) -> Tensor:
        x = x.contiguous()
        dtype, heads = x.dtype, query.shape[:2]
        made: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            to_q, to_k = (w.flatten(0, 1).to(dtype) for w in (query, key))  # (heads d, C)
            to_v, to_exit = value.transpose(1, 2).to(dtype), exit_weight.to(dtype)
            output = torch.empty_like(x)
            for span in spans(len(x), 4 * x.shape[1] * len(to_q)):
                h, reciprocal = normalised(x[span])
                y = h.to(dtype)
                k = _tokens(y, to_k).softmax(1)
                pooled = _pooled(k, y).unflatten(1, heads)
                context = torch.matmul(pooled, to_v)
                mixed = torch.matmul(context, to_exit).flatten(1, 2)
                q = softmax_over_heads(_tokens(y, to_q), heads)
                torch.add(x[span], _spread(q, mixed).add_(bias.to(dtype)), out=output[span])
                if saves:
                    made += Made(y, reciprocal, k, pooled, context, mixed, q)
        ctx.save_for_backward(query, key, value, exit_weight, *made)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, exit_weight, *made = ctx.saved_tensors
        dtype, heads = gradient.dtype, query.shape[:2]
        of_query, of_key, of_value, of_exit = (
            torch.zeros_like(w) for w in (query, key, value, exit_weight)
        )
        with torch.autocast("cpu", enabled=False):
            gradient = gradient.contiguous()
            to_q, to_k = (w.flatten(0, 1).to(dtype) for w in (query, key))
            to_v, to_exit = value.transpose(1, 2).to(dtype), exit_weight.to(dtype)
            of_x = torch.empty_like(gradient)
            blocks = zip(*[iter(made)] * len(Made._fields), strict=True)
            for span, block in zip(
                spans(len(gradient), 4 * gradient.shape[1] * len(to_q)), blocks, strict=True
            ):
                y, reciprocal, k, pooled, context, mixed, q = block
                g, flat = gradient[span], y.flatten(0, 1)
                # out = x + q mixed
                of_mixed = _pooled(q, g).unflatten(1, heads)
                of_q = softmax_gradient(_spread(g, mixed.transpose(1, 2)), q, heads).flatten(0, 1)
                of_query += weight_gradient(of_q, flat).view(query.shape)
                of_y = product(of_q, to_q.t())
                # mixed = context exit, context = pooled value
                of_exit += torch.matmul(context.transpose(2, 3), of_mixed).sum(0)
                of_context = torch.matmul(of_mixed, to_exit.transpose(1, 2))
                of_value += torch.matmul(of_context.transpose(2, 3), pooled).sum(0)
                of_pooled = torch.matmul(of_context, to_v.transpose(1, 2)).flatten(1, 2)
                # pooled = k' y; the sum in softmax's gradient is known from `pooled`
                of_y += _spread(k, of_pooled).flatten(0, 1)
                mean = (of_pooled.float() * pooled.flatten(1, 2).float()).sum(-1)[:, None].to(dtype)
                of_k = _spread(y, of_pooled.transpose(1, 2)).sub_(mean).mul_(k).flatten(0, 1)
                of_key += weight_gradient(of_k, flat).view(key.shape)
                of_y += product(of_k, to_k.t())
                of_h = normalised_gradient(of_y.view(y.shape).float(), y.float(), reciprocal)
                torch.add(g, of_h, out=of_x[span])
        of_bias = gradient.sum((0, 1), dtype=torch.float32)
        return of_x, of_query, of_key, of_value, of_exit, of_bias, None


def _tokens(y: Tensor, weight: Tensor) -> Tensor:
    """y (n, M, C), weight (O, C) -> (n, M, O)."""
    tokens: Tensor = product(y.flatten(0, 1), weight).unflatten(0, y.shape[:2])
    return tokens


def _pooled(a: Tensor, b: Tensor) -> Tensor:
    """Sum over positions of a (n, M, O) and b (n, M, C): (n, O, C)."""
    if len(a) == 1:
        return weight_gradient(a[0], b[0])[None]
    return torch.bmm(a.transpose(1, 2), b)


def _spread(a: Tensor, b: Tensor) -> Tensor:
    """Each frame's a (n, M, K) by its matrix b (n, K, O): (n, M, O)."""
    if len(a) == 1:
        return product(a[0], b[0].t())[None]
    return torch.bmm(a, b)


def softmax_over_heads(tokens: Tensor, heads: torch.Size) -> Tensor:
    """Over each head's channels: (n, M, heads d), same out."""
    output: Tensor = tokens.unflatten(-1, heads).softmax(-1).flatten(-2)
    return output


def softmax_gradient(gradient: Tensor, output: Tensor, heads: torch.Size) -> Tensor:
    """Of softmax_over_heads: (n, M, heads d), all."""
    of_input = torch._softmax_backward_data(
        gradient.unflatten(-1, heads), output.unflatten(-1, heads), -1, gradient.dtype
    )
    return of_input.flatten(-2)
