"""RMS norm, scale, shift, SiLU and a convolution as one function: conv(SiLU(x / rms(x) a + b)).

Norm and activation go block by block; saved for the gradient are their results.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.blocks import (
    EPS,
    by_blocks,
    normalised,
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
        x: (N, H, W, C).   scale, shift: (B, C), N a multiple of B, sample b's frames together;
            or (N, C).
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
    if scale.shape[0] == 1:  # the norm's own kernel multiplies by one that all samples share
        h = F.rms_norm(x, x.shape[-1:], scale.squeeze(0).to(x.dtype), EPS).to(x.dtype)
        h = F.silu(h + shift.squeeze(0).to(x.dtype))
    else:
        h = F.rms_norm(x, x.shape[-1:], eps=EPS).to(x.dtype).unflatten(0, (scale.shape[0], -1))
        a, b = (t[:, None, None, None].to(x.dtype) for t in (scale, shift))
        h = _ScaledSiLU.apply(h, a, b).flatten(0, 1)
    output = conv(h, weight.to(h.dtype), bias)
    return output if residual is None else output + residual


class _ScaledSiLU(torch.autograd.Function):
    """SiLU(h scale + shift): six operators with the gradient where autograd takes ten."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        activation = torch.addcmul(shift, h, scale)
        ctx.save_for_backward(h, scale, activation)
        return F.silu(activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, scale, activation = ctx.saved_tensors
        both = gradient.new_empty((2, *h.shape))  # to be summed in one pass
        g = torch.ops.aten.silu_backward.grad_input(gradient, activation, grad_input=both[1])
        torch.mul(g, h, out=both[0])
        of_scale, of_shift = both.sum((2, 3, 4), keepdim=True)
        return g * scale, of_scale, of_shift


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
        ctx.bias_size = None if bias is None else list(bias.shape)
        ctx.has_residual = residual is not None
        with torch.autocast("cpu", enabled=False):
            y, *made = activated(x, scale, shift)
            ctx.save_for_backward(scale, shift, weight, y, *made)
            cast_bias = None if bias is None else bias.to(x.dtype)
            output = conv(y, weight.to(x.dtype), cast_bias)
            return output if residual is None else output.add_(residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale, shift, weight, y, *made = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            of_y, of_weight, of_bias = torch.ops.aten.convolution_backward(
                gradient.contiguous().permute(0, 3, 1, 2),
                y.permute(0, 3, 1, 2),
                weight.to(y.dtype),
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
            of_scale, of_shift = activated_gradient(of_y, made, scale, shift)
        return (
            of_y,
            of_scale,
            of_shift,
            of_weight,
            of_bias,
            gradient if ctx.has_residual else None,
        )


def activated(x: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """y = SiLU(h scale + shift), like x (N, H, W, C), then h = x / rms(x) and 1 / rms(x) of each
    block of x.
    """
    y = torch.empty_like(x)
    made = []
    for (source, target), (a, b) in _blocks((x, y), (scale, shift)):
        h, reciprocal = normalised(source)
        target.copy_(F.silu(torch.addcmul(b, h, a), inplace=True))
        made += [h.to(x.dtype), reciprocal]
    return [y, *made]


def activated_gradient(
    gradient: Tensor, made: list[Tensor], scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Writes the gradient of x over that of y; returns those of scale and shift."""
    of_scale, of_shift = torch.zeros_like(scale), torch.zeros_like(shift)
    blocks = _blocks((gradient,), (scale, shift, of_scale, of_shift))
    for ((target,), (a, b, of_a, of_b)), *block in zip(blocks, made[::2], made[1::2], strict=True):
        h, reciprocal = block[0].float(), block[1]
        g = torch.ops.aten.silu_backward(target.float(), torch.addcmul(b, h, a))
        of_b.add_(g.sum(1, keepdim=True))
        along = g * h
        of_a.add_(along.sum(1, keepdim=True))
        along = along @ (a / h.shape[-1]).transpose(1, 2)
        target.copy_(g.mul_(a).addcmul_(h, along, value=-1).mul_(reciprocal))
    return of_scale, of_shift


def _blocks(
    tensors: Sequence[Tensor], coefficients: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Views (b, m, C) of tensors (N, H, W, C), with those (b, 1, C) of the coefficients (B, C):
    as many whole samples, or frames, as make up a block, or parts of one.
    """
    num_samples, width = coefficients[0].shape
    views = [t.view(num_samples, -1, width) for t in tensors]
    rows = views[0].shape[1]
    for some in spans(num_samples, 4 * width * rows):
        for span in spans(rows, 4 * width):
            yield [v[some, span] for v in views], [c[some, None] for c in coefficients]
