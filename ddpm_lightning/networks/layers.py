"""Layers of a video network on tokens (N, H, W, C), N = B F folded frames.

One memory layout throughout: channels last. A convolution sees the same memory as (N, C, H, W),
attention as (N, H W, C) or (B, F, H W, C); none of these views copies.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lightning.networks.blocks import by_blocks
from ddpm_lightning.networks.norm_conv import conv, norm_conv

M = TypeVar("M", bound=nn.Module)


class LogSNREmbedding(nn.Module):
    """log-SNR (B,) -> (B, width), or (B, F) -> (B F, width): sines and cosines of geometrically
    spaced frequencies, and an MLP. Further conditions, vectors (B, vector_width) of norm 1, are
    added before its second layer.

    Their weights start as N(0, 1), so that a vector adds numbers of size 1 to those of log-SNR, of
    size 0.4. Adam moves each weight by about its rate a step, however small its gradient. Vectors
    that are far apart from the start are told apart by the layers behind, whose outputs then move
    by some width / 2 = 96 rates a step; where they start at 0, they move themselves, by a rate a
    step, and act through weights of size 0.04, on an output by some 6 rates. See
    docs/conditioning.md for what that means for samples.
    """

    frequencies: Tensor

    def __init__(self, width: int, vector_width: int = 0, num_frequencies: int = 16) -> None:
        super().__init__()
        # Periods from 80, the range of log-SNR (+-40), down to 0.8.
        periods = torch.logspace(1.903, -0.097, num_frequencies)
        self.register_buffer("frequencies", 2 * torch.pi / periods, persistent=False)
        self.first = nn.Linear(2 * num_frequencies, width)
        self.second = nn.Linear(width, width)
        self.vectors = nn.Linear(vector_width, width, bias=False) if vector_width else None
        if self.vectors is not None:
            nn.init.normal_(self.vectors.weight)

    def forward(self, log_snr: Tensor, vectors: Tensor | None = None) -> Tensor:
        angle = log_snr.flatten()[:, None] * self.frequencies
        h = self.first(torch.cat([angle.sin(), angle.cos()], dim=1).to(self.first.weight.dtype))
        if self.vectors is not None:
            added = self.vectors(vectors)
            h = h + added.repeat_interleave(h.shape[0] // added.shape[0], 0)
        return F.silu(self.second(F.silu(h)))


class Modulation(NamedTuple):
    """What log-SNR and conditions make of a norm: (B, C), or (N, C)."""

    scale: Tensor
    shift: Tensor


class RMSConv(nn.Module):
    """RMS norm over channels, scale and shift, SiLU, 3x3 convolution."""

    def __init__(self, in_width: int, out_width: int, bias: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(in_width))
        self.offset = nn.Parameter(torch.zeros(in_width))
        self.conv = nn.Conv2d(in_width, out_width, 3, padding=1, bias=bias)

    @staticmethod
    def modulated(layers: "Sequence[RMSConv]", more: Tensor, further: Tensor) -> Modulation:
        """Return scale and shift (B, in) from more and further (B, in), the layers side by side."""
        gain = torch.cat([layer.gain for layer in layers])
        offset = torch.cat([layer.offset for layer in layers])
        return Modulation(gain * (1 + more), offset * (1 + more) + further)

    def forward(
        self, x: Tensor, modulation: Modulation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """x (N, H, W, in), modulation (B or N, in), residual (N, H, W, out) -> (N, H, W, out)."""
        scale, shift = modulation or (self.gain[None], self.offset[None])
        return norm_conv(x, scale, shift, self.conv.weight, self.conv.bias, residual)

    def zero(self) -> None:
        """Makes the output zero."""
        zeroed(self.conv)


class GroupConv(nn.Module):
    """As RMSConv, with group norm over channels and positions of a frame."""

    def __init__(self, in_width: int, out_width: int, bias: bool = True) -> None:
        super().__init__()
        self.norm = group_norm(in_width)
        self.conv = nn.Conv2d(in_width, out_width, 3, padding=1, bias=bias)

    @staticmethod
    def modulated(layers: "Sequence[GroupConv]", more: Tensor, further: Tensor) -> Modulation:
        """Return scale and shift (B, in) from more and further (B, in), the layers side by side."""
        return Modulation(1 + more, further)

    def forward(
        self, x: Tensor, modulation: Modulation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        h = self.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if modulation is not None:
            scale, shift = (m[:, None, None, None].to(h.dtype) for m in modulation)
            h = (h.unflatten(0, (scale.shape[0], -1)) * scale + shift).flatten(0, 1)
        h = conv(F.silu(h), self.conv.weight, self.conv.bias)
        return h if residual is None else h + residual

    def zero(self) -> None:
        """Makes the output zero."""
        zeroed(self.conv)


class MagnitudeConv(nn.Module):
    """Magnitude-preserving (Karras et al. 2024): rows of the weight have unit length, SiLU is
    divided by its own root mean square 0.596, there is no bias; a learned gain scales the exit.
    """

    def __init__(self, in_width: int, out_width: int, bias: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.conv = nn.Conv2d(in_width, out_width, 3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight)
        self.register_buffer("unit", torch.ones(1, in_width), persistent=False)
        self.unit: Tensor

    @staticmethod
    def modulated(layers: "Sequence[MagnitudeConv]", more: Tensor, further: Tensor) -> Modulation:
        """Return scale (B, in) from more (B, in), the layers side by side, and no shift."""
        return Modulation(1 + more, torch.zeros_like(more))

    def forward(
        self, x: Tensor, modulation: Modulation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        scale, shift = modulation or (self.unit, torch.zeros_like(self.unit))
        weight = self.conv.weight.float()
        length = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True) + 1e-4
        weight = weight * (self.gain / 0.596) / length
        return norm_conv(x, scale, shift, weight, None, residual)

    def zero(self) -> None:
        """Makes the output zero."""
        nn.init.zeros_(self.gain)


CONVOLUTIONS: dict[str, type[RMSConv | GroupConv | MagnitudeConv]] = {
    "rms": RMSConv,
    "group": GroupConv,
    "magnitude": MagnitudeConv,
}


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice; log-SNR scales and shifts the second norm.

    Where a skip comes in from the way down, x and skip have a norm and a convolution each, which
    are added: the same as one on their concatenation, but for the norm, and nothing is copied.

    Args:
        in_width, skip_width, out_width: channels of x, of the skip (0: none) and of the output.
        norm: rms, group or magnitude.
        full: 3x3x3 convolutions, along time too.
        zero_exit: the block starts as its 1x1 skip, or as the identity.
    """

    def __init__(
        self,
        in_width: int,
        skip_width: int,
        out_width: int,
        embedding_width: int,
        norm: str,
        full: bool,
        zero_exit: bool,
    ) -> None:
        super().__init__()
        make, times = CONVOLUTIONS[norm], 3 if full else 1
        self.full = full
        self.conv_in = make(in_width, times * out_width, bias=not full)
        self.skip_in = make(skip_width, times * out_width, bias=False) if skip_width else None
        self.modulation = nn.Linear(embedding_width, 2 * out_width)
        self.conv_out = make(out_width, times * out_width, bias=not full)
        if zero_exit:
            self.conv_out.zero()
        needs_conv = in_width != out_width or skip_width
        self.shortcut = nn.Conv2d(in_width, out_width, 1) if needs_conv else None
        self.skip_shortcut = nn.Conv2d(skip_width, out_width, 1) if skip_width else None

    def forward(
        self, x: Tensor, modulation: Modulation, num_frames: int, skip: Tensor | None = None
    ) -> Tensor:
        """x (N, H, W, in_width), modulation (B or N, out_width) -> (N, H, W, out_width)."""
        h = self.conv_in(x)
        if self.shortcut is not None:
            x = conv(x, self.shortcut.weight, self.shortcut.bias)
        if skip is not None:
            assert self.skip_in is not None
            assert self.skip_shortcut is not None
            h = self.skip_in(skip, residual=h)
            x = x + conv(skip, self.skip_shortcut.weight, self.skip_shortcut.bias)
        if not self.full:
            output: Tensor = self.conv_out(h, modulation, residual=x)
            return output
        h = along_time(h, num_frames)
        return x + along_time(self.conv_out(h, modulation), num_frames)


def modulate(blocks: Sequence[ResidualBlock], embedding: Tensor) -> list[Modulation]:
    """Return each block's modulation of its second norm, from the embedding (B or N, width)."""
    if by_blocks(embedding) or torch.compiler.is_compiling():
        return [_modulate([block], block.modulation(embedding)) for block in blocks]
    # One product for all, rather than eight small launches for each.
    weight, bias = (
        torch.cat([getattr(block.modulation, name) for block in blocks])
        for name in ("weight", "bias")
    )
    widths = tuple(block.modulation.out_features // 2 for block in blocks)
    modulation = F.linear(embedding, weight, bias)
    modulation = modulation.index_select(1, halves_first(widths, embedding.device))
    scales, shifts = (
        m.to(modulation.dtype).split(widths, 1) for m in _modulate(blocks, modulation)
    )
    return [Modulation(*pair) for pair in zip(scales, shifts, strict=True)]


def _modulate(blocks: Sequence[ResidualBlock], modulation: Tensor) -> Modulation:
    layers: Any = [block.conv_out for block in blocks]
    modulated: Modulation = layers[0].modulated(layers, *modulation.float().chunk(2, dim=1))
    return modulated


@cache
def halves_first(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the order that puts the first halves of 2 x widths channels before the second ones."""
    starts = [2 * start for start in accumulate(widths, initial=0)][:-1]
    both = list(zip(starts, widths, strict=True))
    first = [channel for start, width in both for channel in range(start, start + width)]
    second = [
        channel for start, width in both for channel in range(start + width, start + 2 * width)
    ]
    with torch.inference_mode(False):  # it is kept, and a later step may train
        return torch.tensor(first + second, device=device)


def along_time(x: Tensor, num_frames: int) -> Tensor:
    """Ends a 3x3x3 convolution: of x (N, H, W, 3 C) the thirds are what the frame before, this one
    and the one after contribute; nothing comes from beyond the ends.
    """
    before, output, after = x.unflatten(0, (-1, num_frames)).chunk(3, dim=-1)
    output = output + F.pad(before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    output = output + F.pad(after[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    folded: Tensor = output.flatten(0, 1)
    return folded


class TemporalConv(nn.Module):
    """A convolution of width 3 along each pixel's frames, which starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, M, C), same out."""
        output: Tensor = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return output


class Downsample(nn.Module):
    """Halves H and W: a convolution of 2x2 or 4x4 pixels, or the mean of 2x2 and a 1x1 one."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        kernel, stride, padding = {"shuffle": (2, 2, 0), "strided": (4, 2, 1), "area": (1, 1, 0)}[
            kind
        ]
        self.area = kind == "area"
        self.conv = nn.Conv2d(width, width, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, width) -> (N, H / 2, W / 2, width)."""
        x = x.permute(0, 3, 1, 2)
        output: Tensor = self.conv(F.avg_pool2d(x, 2) if self.area else x)
        return output.permute(0, 2, 3, 1)


class Upsample(nn.Module):
    """Doubles H and W: the transpose of Downsample's convolution, or a 1x1 one and repetition."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if kind == "strided":
            self.conv = nn.ConvTranspose2d(width, width, 4, 2, 1)
        else:
            self.conv = nn.Conv2d(width, 4 * width if kind == "shuffle" else width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, width) -> (N, 2 H, 2 W, width)."""
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if self.kind == "strided":
            return x
        n, height, width, channels = x.shape
        if self.kind == "area":
            x = x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        else:
            x = x.reshape(n, height, width, 2, 2, channels // 4).transpose(2, 3)
        return x.reshape(n, 2 * height, 2 * width, -1)


RESAMPLINGS = ("shuffle", "strided", "area")


def group_norm(width: int) -> nn.GroupNorm:
    """Groups of at least 8 channels, at most 32 groups."""
    return nn.GroupNorm(
        next(g for g in range(min(32, max(1, width // 8)), 0, -1) if not width % g), width
    )


def zeroed(module: M) -> M:
    """The module with weights and bias at zero: a branch that starts without effect."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
