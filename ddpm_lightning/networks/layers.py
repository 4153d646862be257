"""Layers of a factorised video network: frames are folded into the batch, (B F, C, H, W).

Convolutions and spatial attention work within a frame, temporal attention along each pixel's F
frames.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class LogSNREmbedding(nn.Module):
    """log-SNR (B,) -> (B, width): sines and cosines of geometrically spaced frequencies, and an
    MLP.
    """

    frequencies: Tensor

    def __init__(self, width: int, num_frequencies: int = 16) -> None:
        super().__init__()
        # Periods from 80 (twice the range of log-SNR, +-20) down to 0.8.
        periods = torch.logspace(1.903, -0.097, num_frequencies)
        self.register_buffer("frequencies", 2 * torch.pi / periods, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * num_frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, log_snr: Tensor) -> Tensor:
        angle = log_snr[:, None] * self.frequencies
        output: Tensor = self.mlp(torch.cat([angle.sin(), angle.cos()], dim=1))
        return output


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice; log-SNR scales and shifts the second norm."""

    def __init__(self, in_width: int, out_width: int, embedding_width: int) -> None:
        super().__init__()
        self.norm_in = group_norm(in_width)
        self.conv_in = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.modulation = nn.Linear(embedding_width, 2 * out_width)
        self.norm_out = group_norm(out_width)
        self.conv_out = zeroed(nn.Conv2d(out_width, out_width, 3, padding=1))
        self.skip = nn.Conv2d(in_width, out_width, 1) if in_width != out_width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B F, in_width, H, W), embedding (B, embedding_width) -> (B F, out_width, H, W)."""
        num_frames = len(x) // len(embedding)
        h = self.conv_in(F.silu(self.norm_in(x)))
        modulation = self.modulation(embedding).repeat_interleave(num_frames, dim=0)
        scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        output: Tensor = self.skip(x) + self.conv_out(F.silu(h))
        return output


class Attention(nn.Module):
    """What spatial and temporal attention share: norm, projections, a residual exit at zero."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads(width, head_width)
        self.norm = group_norm(width)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.exit = zeroed(nn.Conv2d(width, width, 1))


class SpatialAttention(Attention):
    """Self-attention among the H W positions of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(B F, width, H, W), same out."""
        height = x.shape[2]
        q, k, v = rearrange(
            self.to_qkv(self.norm(x)), "n (z h d) y x -> z n h (y x) d", z=3, h=self.num_heads
        )
        # Contiguous: the fast kernels want the channels of a head side by side.
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out = F.scaled_dot_product_attention(q, k, v)  # (B F, heads, H W, d)
        output: Tensor = x + self.exit(rearrange(out, "n h (y x) d -> n (h d) y x", y=height))
        return output


class TemporalAttention(Attention):
    """Self-attention among the F frames of each pixel, with rotary positions: any F works."""

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """(B F, width, H, W), same out."""
        height, width = x.shape[2:]
        q, k, v = rearrange(
            self.to_qkv(self.norm(x)),
            "(b f) (z h d) y x -> z (b y x) h f d",
            z=3,
            h=self.num_heads,
            f=num_frames,
        )
        out = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (B H W, heads, F, d)
        out = rearrange(out, "(b y x) h f d -> (b f) (h d) y x", y=height, x=width)
        output: Tensor = x + self.exit(out)
        return output


def rotate(x: Tensor) -> Tensor:
    """Rotary positions along the last but one axis (Su et al. 2021): x (..., F, d), d even.

    Pairs of channels turn by f theta_i, so dot products depend on the distance in time alone.
    """
    num_frames, width = x.shape[-2:]
    theta = 100 ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    angle = torch.arange(num_frames, device=x.device, dtype=torch.float32)[:, None] * theta
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # (F, d / 2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def group_norm(width: int) -> nn.GroupNorm:
    """Groups of at least 8 channels, at most 32 groups."""
    return nn.GroupNorm(
        next(g for g in range(min(32, max(1, width // 8)), 0, -1) if not width % g), width
    )


def zeroed(module: nn.Conv2d) -> nn.Conv2d:
    """The module with weights and bias at zero: a residual branch that starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def num_heads(width: int, head_width: int) -> int:
    """Heads of head_width channels each; at least one, of an even number of channels."""
    if width % head_width or head_width % 2:
        raise ValueError(
            f"head_width must be even and divide the width of each level, got {head_width} "
            f"for a level of {width} channels; choose network.base_width as a multiple of it"
        )
    return width // head_width
