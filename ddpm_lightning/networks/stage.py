"""A stage of the U-Net: residual blocks and attention at one resolution."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm_lightning.networks.attention import SPATIAL, CrossAttention, Spatial, TemporalAttention
from ddpm_lightning.networks.blocks import Modulation, Norm, ResidualBlock
from ddpm_lightning.networks.kernels.precision import weights_like
from ddpm_lightning.networks.layers import TemporalConv

Mixing = Literal["none", "separable", "full"]


class Build(NamedTuple):
    """What all layers of a network have in common."""

    embedding_width: int
    head_width: int
    norm: Norm
    temporal_mixing: Mixing
    zero_exits: bool
    token_width: int

    def block(self, in_width: int, skip_width: int, out_width: int) -> ResidualBlock:
        return ResidualBlock(
            in_width,
            skip_width,
            out_width,
            self.embedding_width,
            self.norm,
            full=self.temporal_mixing == "full",
            zero_exit=self.zero_exits,
        )

    def temporal(self, width: int, num_heads: int) -> TemporalAttention:
        return TemporalAttention(width, num_heads, self.head_width, self.zero_exits)

    def cross(self, width: int, num_heads: int) -> CrossAttention | None:
        """Without effect at the start, so that a trained network can learn about tokens."""
        if not self.token_width:
            return None
        return CrossAttention(
            width, num_heads, self.head_width, zero_exit=True, source_width=self.token_width
        )


class StageOptions(NamedTuple):
    """The options of a level; see UNet3D."""

    width: int
    num_blocks: int
    spatial: Spatial
    temporal: bool
    num_heads: int
    checkpointing: bool


class Stage(nn.Module):
    """Residual blocks, then attention within frames, to condition tokens, along time, if asked for.

    Args:
        level: of the network, from 0.
        in_width, out_width: channels before the first block, and after each.
        skip_width: channels of what comes in from the way down, 0 for nothing.
    """

    def __init__(
        self,
        build: Build,
        options: StageOptions,
        level: int,
        in_width: int,
        out_width: int,
        skip_width: int,
    ) -> None:
        super().__init__()
        entering = [(in_width, skip_width)] + [(out_width, 0)] * (options.num_blocks - 1)
        self.blocks = nn.ModuleList(build.block(*widths, out_width) for widths in entering)
        separable = build.temporal_mixing == "separable"
        self.mixers = nn.ModuleList(TemporalConv(out_width) for _ in self.blocks if separable)
        spatial, heads = SPATIAL[options.spatial], options.num_heads
        arguments = (out_width, heads, build.head_width, build.zero_exits)
        self.spatial = None if spatial is None else spatial(*arguments)
        self.cross = None if spatial is None else build.cross(out_width, heads)
        self.temporal = build.temporal(out_width, heads) if options.temporal else None
        self.level, self.checkpointing = level, options.checkpointing

    def forward(
        self,
        x: Tensor,
        modulations: Sequence[Modulation],
        num_frames: int,
        images: int,
        skip: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """x (B F, H, W, C), a modulation for each block, tokens (B, L, token_width); the first
        `images` samples of B see no other frame of theirs.
        """
        arguments = (x, modulations, num_frames, images, skip, tokens)
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(self.apply_layers, *arguments, use_reentrant=False)
            return output
        return self.apply_layers(*arguments)

    def apply_layers(
        self,
        x: Tensor,
        modulations: Sequence[Modulation],
        num_frames: int,
        images: int,
        skip: Tensor | None,
        tokens: Tensor | None,
    ) -> Tensor:
        """Return the output of `forward`; weights are cast here, where they are also recomputed."""
        with weights_like(x, self):
            for number, (block, modulation) in enumerate(
                zip(self.blocks, modulations, strict=True)
            ):
                x = block(x, modulation, num_frames, None if number else skip)
                if self.mixers:
                    x = over_time(self.mixers[number], x, num_frames, images)
            if self.spatial is not None:
                x = self.spatial(x)
            if self.cross is not None:
                x = self.cross(x, tokens)
            if self.temporal is not None:
                x = over_time(self.temporal, x, num_frames, images)
        return x


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor, num_frames: int, images: int) -> Tensor:
    """Applies a layer for (B, F, M, C) to x (B F, H, W, C), but for the first `images` samples."""
    tokens = x.unflatten(0, (-1, num_frames)).flatten(2, 3)
    mixed = layer(tokens[images:] if images else tokens)
    if images:
        mixed = torch.cat([tokens[:images], mixed])
    return mixed.reshape(x.shape)
