"""Layers of a video network on tokens (N, H, W, C), N = B F folded frames.

One memory layout throughout: channels last. A convolution sees the same memory as (N, C, H, W),
attention as (N, H W, C) or (B, F, H W, C); none of these views copies.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resampling = Literal["shuffle", "strided", "area"]


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

    def __init__(self, width: int, kind: Resampling) -> None:
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

    def __init__(self, width: int, kind: Resampling) -> None:
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
