"""Softmax attention of short rows, a pixel's frames or a frame's positions, by blocks on a CPU.

In bfloat16, where pixels far outnumber the channels, a frame's rotation is made part of that
frame's query and key weights, and no token is rotated. Where x is no wider than a head, all heads
mix y = x / rms(x) itself, and their values' weights are made part of the exit's.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_lightning.networks.blocks import (
    normalised,
    normalised_gradient,
    product,
    spans,
    weight_gradient,
)
from ddpm_lightning.networks.rotary import rotated, rotation, rotors, turn

FOLD = 4  # pixels for each channel from which bfloat16 weights are rotated, not tokens; by trial
VECTOR = 16  # float32 values in a vector register: rows shorter than it make softmax slow


def softmax_attention(
    x: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    exit_weight: Tensor,
    bias: Tensor,
    rotary: bool,
) -> Tensor:
    """x + attention of each pixel's rows to one another, on x / rms(x).

    Args:
        x: (B, F, M, C), F rows of each of M pixels.
        query, key, value: (heads, d, C).   exit_weight: (C, heads d).   bias: (C,).
        rotary: whether the rows are frames, in order.
    """
    _, frames, pixels, channels = x.shape
    heads, width, _ = query.shape
    kinds = [query * width**-0.5, key]
    if channels <= width:
        exits = exit_weight.unflatten(1, (heads, width)).transpose(0, 1)
        exit_weight = torch.bmm(exits, value).transpose(0, 1).flatten(1)  # (C, heads C)
    else:
        kinds.append(value)
    weight = torch.stack(kinds)[None]
    if rotary and x.dtype != torch.float32 and pixels > FOLD * channels:
        cos, sin = (t[:, None, None, :, None] for t in rotation(frames, width, x.device))
        first = rotated(weight[:, :2], cos, sin, axis=-2)
        weight = torch.cat([first, weight[:, 2:].expand(frames, -1, -1, -1, -1)], dim=1)
    output: Tensor = Attention.apply(x, weight, exit_weight, bias, rotary, torch.is_grad_enabled())
    return output


class Made(NamedTuple):
    """What the gradient of a block needs: p pixels of n clips, P = n p, heads h.

    y: (n, p, F, C), reciprocal: (n, p, F, 1).   q, k: (P h, F, d), rotated.
    v: as they, or y (P, F, C), the values of all heads.   attention: (P h, F, F).
    mixed: (P F, h d) or (P F, h C), what goes to the exit.
    """

    y: Tensor
    reciprocal: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    attention: Tensor
    mixed: Tensor


class Attention(torch.autograd.Function):
    """By blocks of pixels; saves what it makes.

    The weight is (1, kinds, heads, d, C), or (F, kinds, heads, d, C) with rotations in it; there
    are three kinds, or two where y itself is mixed and the exit's weight is (C, heads C).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        exit_weight: Tensor,
        bias: Tensor,
        rotary: bool,
        saves: bool,
    ) -> Tensor:
        ctx.rotary = rotary
        with torch.autocast("cpu", enabled=False):
            layer = _Layer(x, weight, exit_weight, rotary)
            output, bias = (
                torch.empty_like(x, memory_format=torch.contiguous_format),
                bias.to(x.dtype),
            )
            made: list[Tensor] = []
            for clips, pixels in layer.cuts(x.shape):
                part = x[clips, :, pixels].transpose(1, 2)
                block = layer.make(part)
                out = product(block.mixed, layer.exit, bias).view(part.shape)
                torch.add(part, out, out=output[clips, :, pixels].transpose(1, 2))
                if saves:
                    made += block
        ctx.save_for_backward(weight, exit_weight, *made)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, exit_weight, *made = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            layer = _Layer(gradient, weight, exit_weight, ctx.rotary)
            of_x = torch.empty_like(gradient, memory_format=torch.contiguous_format)
            of_weight = torch.zeros(layer.weight.transpose(1, 2).shape)
            of_exit = torch.zeros_like(exit_weight)
            blocks = zip(*[iter(made)] * len(Made._fields), strict=True)
            for (clips, pixels), block in zip(layer.cuts(gradient.shape), blocks, strict=True):
                g = gradient[clips, :, pixels].transpose(1, 2)
                of_y = layer.gradients(g, Made(*block), of_weight, of_exit)
                torch.add(g, of_y, out=of_x[clips, :, pixels].transpose(1, 2))
        of_bias = gradient.sum((0, 1, 2), dtype=torch.float32)
        return of_x, of_weight.transpose(1, 2).reshape(weight.shape), of_exit, of_bias, None, None


class _Layer:
    """What is done with a block, and how its rows are ordered: as tokens (n p F, ..) for products
    with weights, by head (n p h, F, d) for attention.
    """

    def __init__(self, x: Tensor, weight: Tensor, exit_weight: Tensor, rotary: bool) -> None:
        self.weight, self.exit = weight.flatten(1, 3).to(x.dtype), exit_weight.to(x.dtype)
        self.frames, self.kinds = x.shape[1], weight.shape[1]
        self.heads, self.width = weight.shape[2:4]
        self.folds = len(weight) > 1  # rotations are in the weights
        self.turns = rotary and not self.folds

    def cuts(self, shape: torch.Size) -> Iterator[tuple[slice, slice]]:
        """Blocks of x (B, F, M, C), as slices of B and of M."""
        clips, frames, pixels, _ = shape
        bytes_each = 4 * self.weight.shape[1] * frames  # of a pixel's queries, keys and values
        cuts = list(spans(pixels, bytes_each, multiple=16))
        if len(cuts) == 1 and not self.folds:
            yield from ((span, slice(None)) for span in spans(clips, bytes_each * pixels))
        else:
            yield from ((slice(clip, clip + 1), cut) for clip in range(clips) for cut in cuts)

    def make(self, x: Tensor) -> Made:
        """x (n, p, F, C)."""
        h, reciprocal = normalised(x.contiguous())
        y = h.to(x.dtype)
        if self.folds:
            tokens = torch.bmm(y[0].transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1)
        else:
            tokens = product(y.flatten(0, 2), self.weight[0])
        rows = tokens.reshape(-1, self.frames, self.kinds, self.heads, self.width)
        rows = rows.permute(2, 0, 3, 1, 4).contiguous()  # (kinds, P, h, F, d)
        if self.turns:
            turn(rows[:2], rotors(self.frames, self.width, x.device)[0])
        q, k, *others = rows.flatten(1, 2)
        v = others[0] if others else y.flatten(0, 1)
        attention = softmax(torch.bmm(q, k.transpose(1, 2)))
        mixed = torch.bmm(attention.view(len(v), -1, self.frames), v)
        mixed = mixed.view(-1, self.heads, self.frames, v.shape[-1]).transpose(1, 2)
        return Made(y, reciprocal, q, k, v, attention, mixed.reshape(-1, self.exit.shape[1]))

    def gradients(self, g: Tensor, made: Made, of_weight: Tensor, of_exit: Tensor) -> Tensor:
        """That of x but for the residual's, g (n, p, F, C); adds to those of the weights, of_weight
        being transposed.
        """
        y, reciprocal, q, k, v, attention, mixed = made
        flat = g.reshape(len(mixed), -1)
        of_exit += weight_gradient(flat, mixed)
        of_mixed = product(flat, self.exit.t())
        of_mixed = of_mixed.view(-1, self.frames, self.heads, v.shape[-1]).transpose(1, 2)
        of_mixed = of_mixed.reshape(len(v), -1, v.shape[-1])
        of_attention = torch.bmm(of_mixed, v.transpose(1, 2)).view(attention.shape)
        of_scores = softmax_gradient(of_attention, attention)
        of_q, of_k = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q)
        of_v = torch.bmm(attention.view(len(v), -1, self.frames).transpose(1, 2), of_mixed)
        if self.turns:
            back = rotors(self.frames, self.width, q.device)[1]
            turn(of_q, back)
            turn(of_k, back)
        pixels = len(mixed) // self.frames
        order = (2, 0, 1, 3) if self.folds else (0, 2, 1, 3)  # tokens of a frame, or of a pixel
        tokens = torch.cat(
            [
                rows.view(pixels, self.heads, self.frames, -1).permute(order)
                for rows in (of_q, of_k, of_v)[: self.kinds]
            ],
            dim=2,
        )  # (F, p, kinds heads, d) or (P, F, kinds heads, d)
        if self.folds:
            tokens = tokens.flatten(2)
            of_weight += torch.bmm(y[0].permute(1, 2, 0), tokens)
            of_y = torch.bmm(tokens, self.weight).transpose(0, 1)[None]
        else:
            tokens = tokens.view(len(mixed), -1)
            of_weight[0] += weight_gradient(y.flatten(0, 2), tokens)
            of_y = product(tokens, self.weight[0].t()).view(y.shape)
        if self.kinds == 2:
            of_y = of_y + of_v.view(y.shape)
        return normalised_gradient(of_y.float(), y.float(), reciprocal)


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in float32, like scores."""
    s = scores.float()
    if s.shape[-1] >= VECTOR:
        return s.softmax(-1).to(scores.dtype)
    s = (s - s.amax(-1, keepdim=True)).exp_()
    return s.div_(s.sum(-1, keepdim=True)).to(scores.dtype)


def softmax_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    """Of a softmax over the last axis, in float32, like output."""
    g, s = gradient.float(), output.float()
    if s.shape[-1] >= VECTOR:
        return torch._softmax_backward_data(g, s, -1, torch.float32).to(output.dtype)
    g = g * s
    return g.addcmul_(s, g.sum(-1, keepdim=True), value=-1).to(output.dtype)
