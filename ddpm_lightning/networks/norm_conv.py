"""RMS norm, scale, shift, SiLU and a convolution as one function: conv(SiLU(x / rms(x) a + b)).

Saved for the gradient is x alone; the activation is made again from it, block by block.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.blocks import (
    EPS,
    by_blocks,
    normalised,
    normalised_gradient,
    spans,
)


def norm_conv(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
) -> Tensor:
    """conv(SiLU(x / rms(x) scale + shift)) + residual, stride 1, size kept.

    Args:
        x: (N, H, W, C).   scale, shift: (B, C), N a multiple of B, sample b's frames together.
        weight: (O, C, k, k), k odd.   bias: (O,).   residual: (N, H, W, O).
    """
    if by_blocks(x):
        output: Tensor = NormConv.apply(x, scale, shift, weight, bias, residual)
        return output
    return plain_norm_conv(x, scale, shift, weight, bias, residual)


def plain_norm_conv(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
) -> Tensor:
    """norm_conv in single operators: what a compiler fuses, and what the tests compare with."""
    h = F.rms_norm(x, x.shape[-1:], eps=EPS).to(x.dtype).unflatten(0, (scale.shape[0], -1))
    h = h * scale[:, None, None, None].to(x.dtype) + shift[:, None, None, None].to(x.dtype)
    output = conv(F.silu(h).flatten(0, 1), weight, bias)
    return output if residual is None else output + residual


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """(N, H, W, C) -> (N, H / stride, W / stride, O): a view of the channels-last convolution."""
    output = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, weight.shape[-1] // 2)
    return output.permute(0, 2, 3, 1)


class NormConv(torch.autograd.Function):
    """norm_conv on a CPU; computes in x's precision, norm and SiLU in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, scale, shift, weight)
        ctx.bias_size = None if bias is None else list(bias.shape)
        ctx.has_residual = residual is not None
        with torch.autocast("cpu", enabled=False):
            y = activated(x, scale, shift)
            cast_bias = None if bias is None else bias.to(x.dtype)
            output = conv(y, weight.to(x.dtype), cast_bias)
            return output if residual is None else output.add_(residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            gradient = gradient.contiguous()
            of_y, of_weight, of_bias = torch.ops.aten.convolution_backward(
                gradient.permute(0, 3, 1, 2),
                activated(x, scale, shift).permute(0, 3, 1, 2),
                weight.to(x.dtype),
                ctx.bias_size,
                [1, 1],
                [weight.shape[-1] // 2] * 2,
                [1, 1],
                False,
                [0, 0],
                1,
                [True, ctx.needs_input_grad[3], ctx.bias_size is not None],
            )
            of_y = of_y.permute(0, 2, 3, 1).contiguous()
            of_scale, of_shift = activated_gradient(of_y, x, scale, shift)
        return (
            of_y,
            of_scale,
            of_shift,
            of_weight,
            of_bias,
            gradient if ctx.has_residual else None,
        )


def activated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """SiLU(x / rms(x) scale + shift), like x (N, H, W, C)."""
    output = torch.empty_like(x)
    for source, target, a, b in zip(
        *(_pieces(t, len(scale)) for t in (x, output)), *_rows(x, scale, shift), strict=True
    ):
        h, _ = normalised(source)
        target.copy_(F.silu(torch.addcmul(b, h, a, out=h), inplace=True))
    return output


def activated_gradient(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Writes the gradient of x over that of the activation; returns those of scale and shift."""
    of_scale, of_shift = torch.zeros_like(scale), torch.zeros_like(shift)
    for source, target, a, b, of_a, of_b in zip(
        *(_pieces(t, len(scale)) for t in (x, gradient)),
        *_rows(x, scale, shift, of_scale, of_shift),
        strict=True,
    ):
        h, reciprocal = normalised(source)
        g = torch.ops.aten.silu_backward(target.float(), torch.addcmul(b, h, a))
        of_b.add_(g.sum(1, keepdim=True))
        of_a.add_((g * h).sum(1, keepdim=True))
        target.copy_(normalised_gradient(g.mul_(a), h, reciprocal))
    return of_scale, of_shift


def _cuts(x: Tensor, num_samples: int) -> Iterator[tuple[slice, slice]]:
    """Of x as (num_samples, M, C): all at once if that is one block, else sample by sample."""
    rows, width = x.numel() // x.shape[-1], x.shape[-1]
    if len(list(spans(rows, 4 * width))) == 1:
        yield slice(None), slice(None)
        return
    for sample in range(num_samples):
        for span in spans(rows // num_samples, 4 * width):
            yield slice(sample, sample + 1), span


def _pieces(x: Tensor, num_samples: int) -> list[Tensor]:
    """Views (1 or num_samples, m, C) of x, one for each cut."""
    view = x.view(num_samples, -1, x.shape[-1])
    return [view[samples, span] for samples, span in _cuts(x, num_samples)]


def _rows(x: Tensor, *coefficients: Tensor) -> list[list[Tensor]]:
    """Views (1 or B, 1, C) of coefficients (B, C), one for each cut of x."""
    cuts = list(_cuts(x, len(coefficients[0])))
    return [[c[samples, None] for samples, _ in cuts] for c in coefficients]
