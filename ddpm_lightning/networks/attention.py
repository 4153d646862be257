"""Attention layers on tokens (N, H, W, C): among the positions of a frame, along time, or to
conditions.

    y = x / rms(x);   q = y W_q,  k = y W_k,  v = y W_v
    out = x + softmax(q k' / sqrt(d)) v W_out + b

At the start W_out is zero. Linear attention (Shen et al. 2021) has softmax(q) softmax(k)' in the
place of softmax(q k' / sqrt(d)), the first over a head's channels, the second over positions.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lightning.networks import kernels
from ddpm_lightning.networks.blocks import EPS

WINDOW = 8  # positions, the side of a window, or its largest divisor that fits the frame


class Attention(nn.Module):
    """What all kinds share: projections without bias, an exit.

    Args:
        width: channels of x.   num_heads, head_width: of queries, keys and values.
        zero_exit: the layer starts as the identity.
        source_width: channels of what keys and values are made from; None: of x.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_width: int,
        zero_exit: bool,
        source_width: int | None = None,
    ) -> None:
        super().__init__()
        source_width = source_width or width
        self.heads = (num_heads, head_width)
        self.query = nn.Linear(width, num_heads * head_width, bias=False)
        self.key = nn.Linear(source_width, num_heads * head_width, bias=False)
        self.value = nn.Linear(source_width, num_heads * head_width, bias=False)
        self.exit = nn.Linear(num_heads * head_width, width)
        if zero_exit:
            nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def projections(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of queries, keys and values: (heads, d, C) each."""
        query, key, value = (
            layer.weight.unflatten(0, self.heads) for layer in (self.query, self.key, self.value)
        )
        return query, key, value


class LinearAttention(Attention):
    """Linear attention within each frame: its cost grows with H W, not with its square.

    k' v = (k' y) W_v, taken first, and (k' v) W_out, taken before q: heads stay side by side, and
    no value is made.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), same out."""
        query, key, value = self.projections()
        exit_weight = self.exit.weight.t().unflatten(0, self.heads).to(x.dtype)
        tokens, dtype = x.flatten(1, 2), x.dtype
        y = F.rms_norm(tokens, tokens.shape[-1:], eps=EPS).to(dtype)
        q = F.linear(y, query.flatten(0, 1).to(dtype))  # (N, M, heads d)
        k = F.linear(y, key.flatten(0, 1).to(dtype))
        q = q.unflatten(-1, self.heads).softmax(-1).flatten(-2).to(dtype)
        k = k.softmax(1).to(dtype)
        context = (k.transpose(1, 2) @ y).unflatten(1, self.heads)  # (N, heads, d, C)
        context = context @ value.transpose(1, 2).to(dtype) @ exit_weight
        out = torch.baddbmm(tokens + self.exit.bias.to(dtype), q, context.flatten(1, 2))
        return out.view(x.shape)


class FullAttention(Attention):
    """Softmax attention among all positions of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), same out."""
        return self.attend(x.flatten(1, 2)).view(x.shape)

    def attend(self, x: Tensor) -> Tensor:
        """(N, M, C), same out; rows of x do not see each other."""
        y = F.rms_norm(x, x.shape[-1:], eps=EPS)
        weight = torch.cat([layer.weight for layer in (self.query, self.key, self.value)])
        tokens = F.linear(y, weight).unflatten(-1, (3, *self.heads))
        q, k, v = (t.transpose(1, 2) for t in tokens.unbind(2))  # (N, heads, M, d)
        out = kernels.attention(q, k, v).transpose(1, 2).flatten(2)
        output: Tensor = x + self.exit(out).to(x.dtype)
        return output


class WindowedAttention(FullAttention):
    """Softmax attention within square windows of a frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), same out."""
        _, height, width, channels = x.shape
        side = math.gcd(math.gcd(height, width), WINDOW)
        split = x.unflatten(2, (width // side, side)).unflatten(1, (height // side, side))
        split = split.transpose(2, 3)  # (N, H / side, W / side, side, side, C)
        attended = self.attend(split.reshape(-1, side * side, channels)).view(split.shape)
        return attended.transpose(2, 3).reshape(x.shape)


Spatial = Literal["linear", "full", "windowed", "none"]
SPATIAL: dict[Spatial, type[LinearAttention | FullAttention] | None] = {
    "linear": LinearAttention,
    "full": FullAttention,
    "windowed": WindowedAttention,
    "none": None,
}


class CrossAttention(Attention):
    """Softmax attention of all positions of a clip to the clip's condition tokens, in any order."""

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B F, H, W, C), tokens (B, L, source_width), like x out."""
        y = F.rms_norm(x, x.shape[-1:], eps=EPS).view(tokens.shape[0], -1, x.shape[-1])
        source = F.rms_norm(tokens, tokens.shape[-1:], eps=EPS)
        q, k, v = (
            layer(s).unflatten(-1, self.heads).transpose(1, 2)  # (B, heads, F H W or L, d)
            for layer, s in ((self.query, y), (self.key, source), (self.value, source))
        )
        out = kernels.attention(q, k, v).transpose(1, 2).flatten(2)
        output: Tensor = x + self.exit(out).view(x.shape).to(x.dtype)
        return output


class TemporalAttention(Attention):
    """Softmax attention among the F frames of each pixel, with rotary positions: any F works."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, M, C), same out.

        A head of a pixel takes the place of a head: nothing is copied for the sake of its layout.
        """
        dtype, (num_heads, width) = x.dtype, self.heads
        clips, num_frames, num_pixels, channels = x.shape
        y = F.rms_norm(x, (channels,), eps=EPS).to(dtype)
        weight = kernels.stacked(*self.projections()).flatten(0, 2)
        tokens = F.linear(y, weight.to(dtype))
        tokens = tokens.view(clips, num_frames, num_pixels * num_heads, 3, width)
        q, k, v = (t.transpose(1, 2) for t in kernels.turned(tokens))  # (B, M heads, F, d)
        out = kernels.attention(q, k, v).transpose(1, 2)
        out = out.reshape(clips, num_frames, num_pixels, num_heads * width)
        return x + F.linear(out, self.exit.weight.to(dtype), self.exit.bias.to(dtype))
