"""Attention layers on tokens (N, H, W, C): among the positions of a frame, along time, or to
conditions.

Each is a residual branch on x / rms(x); at the start its exit is zero.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lightning.networks.blocks import EPS, by_blocks, fused_attention
from ddpm_lightning.networks.linear_attention import linear_attention
from ddpm_lightning.networks.softmax_attention import softmax_attention
from ddpm_lightning.networks.temporal_attention import temporal_attention

FEW = 256  # positions up to which weights of attention may be written out on a CPU
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
        """Of queries, keys and values: (heads, d, C) each."""
        query, key, value = (
            layer.weight.unflatten(0, self.heads) for layer in (self.query, self.key, self.value)
        )
        return query, key, value


class LinearAttention(Attention):
    """Linear attention within each frame: its cost grows with H W, not with its square."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), same out."""
        exit_weight = self.exit.weight.t().unflatten(0, self.heads)
        tokens = linear_attention(x.flatten(1, 2), *self.projections(), exit_weight, self.exit.bias)
        return tokens.view(x.shape)


class FullAttention(Attention):
    """Softmax attention among all positions of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), same out."""
        return self.attend(x.flatten(1, 2)).view(x.shape)

    def attend(self, x: Tensor) -> Tensor:
        """(N, M, C), same out; rows of x do not see each other."""
        if by_blocks(x) and x.shape[1] <= FEW:
            weights = (*self.projections(), self.exit.weight, self.exit.bias)
            return softmax_attention(x[:, :, None], *weights, rotary=False)[:, :, 0]
        y = F.rms_norm(x, x.shape[-1:], eps=EPS)
        weight = torch.cat([layer.weight for layer in (self.query, self.key, self.value)])
        tokens = F.linear(y, weight).unflatten(-1, (3, *self.heads))
        out = fused_attention(*(t.transpose(1, 2) for t in tokens.unbind(2)))  # (N, heads, M, d)
        out = out.transpose(1, 2).flatten(2)
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


SPATIAL: dict[str, type[LinearAttention | FullAttention] | None] = {
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
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        output: Tensor = x + self.exit(out).view(x.shape).to(x.dtype)
        return output


class TemporalAttention(Attention):
    """Softmax attention among the F frames of each pixel, with rotary positions: any F works."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, M, C), same out."""
        return temporal_attention(x, *self.projections(), self.exit.weight, self.exit.bias)
