"""The residual block: x + conv(SiLU(norm(conv(SiLU(norm(x)))) scale + shift)), on (N, H, W, C).

Log-SNR and conditions scale and shift the second norm; convolutions are of 3x3 positions.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lightning.networks import kernels
from ddpm_lightning.networks.kernels.precision import Uncast

EPS = 1e-6  # added to a mean square before its root


class Modulation(NamedTuple):
    """What log-SNR and conditions make of a norm: (B, C), or (N, C)."""

    scale: Tensor
    shift: Tensor


def norm_conv(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return conv(SiLU(x / rms(x) scale + shift)) + residual, stride 1, size kept.

    Args:
        x: (N, H, W, C).   scale, shift: (B, C), N a multiple of B, sample b's frames together;
            or (N, C).
        weight: (O, C, k, k), k odd.   bias: (O,).   residual: (N, H, W, O).
    """
    if scale.shape[0] == 1:  # the norm's own kernel multiplies by one that all samples share
        h = F.rms_norm(x, x.shape[-1:], scale.squeeze(0).to(x.dtype), EPS).to(x.dtype)
        h = F.silu(h + shift.squeeze(0).to(x.dtype))
    else:
        h = F.rms_norm(x, x.shape[-1:], eps=EPS).to(x.dtype).unflatten(0, (scale.shape[0], -1))
        a, b = (t[:, None, None, None].to(x.dtype) for t in (scale, shift))
        h = kernels.scaled_silu(h, a, b).flatten(0, 1)
    output = conv(h, weight.to(h.dtype), bias)
    return output if residual is None else output + residual


def conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (N, H, W, C) -> (N, H, W, O): a view of the channels-last convolution."""
    output = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2)
    return output.permute(0, 2, 3, 1)


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
        """Make the output zero."""
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)


class GroupConv(nn.Module):
    """Does what RMSConv does, with group norm over channels and positions of a frame."""

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
        """Make the output zero."""
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)


class UncastConv(Uncast, nn.Conv2d):
    """A convolution whose weight is normalised before it is cast."""


class MagnitudeConv(Uncast, nn.Module):
    """Magnitude-preserving (Karras et al. 2024): rows of the weight have unit length, SiLU is
    divided by its own root mean square 0.596, there is no bias; a learned gain scales the exit.
    """

    def __init__(self, in_width: int, out_width: int, bias: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.conv = UncastConv(in_width, out_width, 3, padding=1, bias=False)
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
        """Make the output zero."""
        nn.init.zeros_(self.gain)


Norm = Literal["rms", "group", "magnitude"]
CONVOLUTIONS: dict[Norm, type[RMSConv | GroupConv | MagnitudeConv]] = {
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
        norm: Norm,
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
    if kernels.by_definition():
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


def group_norm(width: int) -> nn.GroupNorm:
    """Return a norm over groups of at least 8 channels, at most 32 groups."""
    return nn.GroupNorm(
        next(g for g in range(min(32, max(1, width // 8)), 0, -1) if not width % g), width
    )
