"""Attention along time: each pixel's F frames attend to one another, with rotary positions.

On a CPU it goes by blocks of pixels. In bfloat16, where these far outnumber the channels, a
frame's rotation (Su et al. 2021) is made part of that frame's query and key weights, and no token
is rotated.
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
    product,
    spans,
    weight_gradient,
)

FOLD = 4  # pixels for each channel from which bfloat16 weights are rotated, not tokens; by trial
VECTOR = 16  # float32 values in a vector register: rows shorter than it make softmax slow


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
    _, frames, pixels, channels = x.shape
    weight = torch.stack([query * query.shape[1] ** -0.5, key, value])[None]
    if x.dtype != torch.float32 and pixels > FOLD * channels:
        cos, sin = (t[:, None, None, :, None] for t in rotation(frames, query.shape[1], x.device))
        first = rotated(weight[:, :2], cos, sin, axis=-2)
        weight = torch.cat([first, weight[:, 2:].expand(frames, -1, -1, -1, -1)], dim=1)
    output: Tensor = TemporalAttention.apply(x, weight, exit_weight, bias)
    return output


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


def rotation(num_frames: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (F, width / 2) of the angles f theta_i."""
    theta = 100 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None] * theta
    return angle.cos(), angle.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor, axis: int = -1) -> Tensor:
    """Turns pairs of neighbours on `axis` < 0 by the frames' angles, so that products of channels
    depend on the distance in time alone.
    """
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], axis).flatten(axis - 1, axis)


def turned(x: Tensor, rotor: Tensor) -> Tensor:
    """`rotated` for x (.., F, d) as a product of complex numbers, rotor (F, d / 2): one pass."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotor).flatten(-2).to(x.dtype)


class TemporalAttention(torch.autograd.Function):
    """temporal_attention on a CPU; saves x, and makes the rest again for the gradient.

    The weight is (1, 3, heads, d, C), or (F, 3, heads, d, C) with rotations in it. A block is
    (n, F, p, C): p pixels of one clip, or all pixels of n clips.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, exit_weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, exit_weight)
        with torch.autocast("cpu", enabled=False):
            layer = _Blocks(x, weight, exit_weight)
            output = torch.empty_like(x)
            for clips, pixels in layer.cuts(x):
                part = x[clips, :, pixels]
                y = normalised(part.contiguous())[0].to(x.dtype)
                _, _, v, attention = layer.attend(y)
                out = product(layer.as_tokens(torch.bmm(attention, v)[None], y.shape), layer.exit)
                out = out.add_(bias.to(x.dtype)).view(y.shape)
                torch.add(part, out, out=output[clips, :, pixels])
            return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, exit_weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            layer = _Blocks(x, weight, exit_weight)
            gradient = gradient.contiguous()
            of_x = torch.empty_like(x)
            of_weight = torch.zeros(layer.weight.shape)
            of_exit = torch.zeros_like(exit_weight)
            for clips, pixels in layer.cuts(x):
                g = gradient[clips, :, pixels]
                h, reciprocal = normalised(x[clips, :, pixels].contiguous())
                y = h.to(x.dtype)
                q, k, v, attention = layer.attend(y)
                mixed = layer.as_tokens(torch.bmm(attention, v)[None], y.shape)
                flat = g.reshape(len(mixed), -1)
                of_exit += weight_gradient(flat, mixed)
                of_mixed = layer.by_pixel(product(flat, layer.exit.t()), y.shape, 1)[0]
                of_scores = softmax_gradient(torch.bmm(of_mixed, v.transpose(1, 2)), attention)
                of_qkv = torch.empty(3, *v.shape, dtype=v.dtype)
                torch.bmm(of_scores, k, out=of_qkv[0])
                torch.bmm(of_scores.transpose(1, 2), q, out=of_qkv[1])
                torch.bmm(attention.transpose(1, 2), of_mixed, out=of_qkv[2])
                of_y = layer.gradients(y, of_qkv, of_weight)
                of_h = normalised_gradient(of_y.float(), h, reciprocal)
                torch.add(g, of_h, out=of_x[clips, :, pixels])
        of_bias = gradient.sum((0, 1, 2), dtype=torch.float32)
        return of_x, of_weight.view(weight.shape), of_exit, of_bias


class _Blocks:
    """What is done with a block, and how its rows are ordered: as tokens (n F p, ..) for products
    with weights, by pixel (n p heads, F, d) for attention.
    """

    def __init__(self, x: Tensor, weight: Tensor, exit_weight: Tensor) -> None:
        self.weight, self.exit = weight.flatten(1, 3).to(x.dtype), exit_weight.to(x.dtype)
        self.width = weight.shape[3]
        self.turns = len(weight) == 1  # else the weights do
        if self.turns:
            self.rotor = torch.complex(*rotation(x.shape[1], self.width, x.device))

    def cuts(self, x: Tensor) -> Iterator[tuple[slice, slice]]:
        """Blocks of x (B, F, M, C), as slices of B and of M."""
        clips, frames, pixels, _ = x.shape
        bytes_each = 4 * self.weight.shape[1] * frames  # of a pixel's queries, keys and values
        cuts = list(spans(pixels, bytes_each, multiple=16))
        if len(cuts) == 1 and self.turns:
            yield from ((span, slice(None)) for span in spans(clips, bytes_each * pixels))
        else:
            yield from ((slice(clip, clip + 1), cut) for clip in range(clips) for cut in cuts)

    def attend(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y (n, F, p, C) -> q, k, v (n p heads, F, d) and attention (n p heads, F, F)."""
        if self.turns:
            tokens = product(y.view(-1, y.shape[-1]), self.weight[0])
        else:
            tokens = torch.bmm(y[0], self.weight.transpose(1, 2))
        q, k, v = self.by_pixel(tokens, y.shape, 3)
        if self.turns:
            q, k = turned(q, self.rotor), turned(k, self.rotor)
        return q, k, v, softmax(torch.bmm(q, k.transpose(1, 2)))

    def gradients(self, y: Tensor, of_qkv: Tensor, of_weight: Tensor) -> Tensor:
        """That of y, from that of q, k, v (3, n p heads, F, d); adds the weight's to of_weight."""
        if self.turns:
            of_qkv[:2] = turned(of_qkv[:2], self.rotor.conj())
            tokens = self.as_tokens(of_qkv, y.shape)
            of_weight[0] += weight_gradient(tokens, y.view(len(tokens), -1))
            return product(tokens, self.weight[0].t()).view(y.shape)
        tokens = self.as_tokens(of_qkv, y.shape).view(*y.shape[1:3], -1)
        of_weight += torch.bmm(tokens.transpose(1, 2), y[0])
        return torch.bmm(tokens, self.weight).view(y.shape)

    def by_pixel(self, tokens: Tensor, block: torch.Size, kinds: int) -> Tensor:
        """(n F p, kinds heads d) -> (kinds, n p heads, F, d), the block being (n, F, p, C)."""
        tokens = tokens.view(*block[:3], kinds, -1, self.width).permute(3, 0, 2, 4, 1, 5)
        return tokens.reshape(kinds, -1, block[1], self.width)

    def as_tokens(self, rows: Tensor, block: torch.Size) -> Tensor:
        """(kinds, n p heads, F, d) -> (n F p, kinds heads d)."""
        n, frames, pixels, _ = block
        rows = rows.view(len(rows), n, pixels, -1, frames, self.width).permute(1, 4, 2, 0, 3, 5)
        return rows.reshape(n * frames * pixels, -1)


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
