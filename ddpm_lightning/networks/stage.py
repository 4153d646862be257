"""A stage of the U-Net: residual blocks and attention at one resolution."""

from collections.abc import Callable, Collection
from difflib import get_close_matches
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm_lightning.networks.attention import (
    CrossAttention,
    FullAttention,
    LinearAttention,
    TemporalAttention,
)
from ddpm_lightning.networks.layers import ResidualBlock, TemporalConv

MIXINGS = ("none", "separable", "full")


class Build(NamedTuple):
    """What all layers of a network have in common."""

    embedding_width: int
    head_width: int
    norm: str
    temporal_mixing: str
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


class Stage(nn.Module):
    """Residual blocks, then attention within frames, to condition tokens, along time, if asked for.

    Args:
        widths: channels before the first block, and after each.
        skip_width: channels of what comes in from the way down, 0 for nothing.
        checkpointing: activations are made again for the gradient.
    """

    def __init__(
        self,
        build: Build,
        widths: list[int],
        skip_width: int,
        spatial: type[LinearAttention | FullAttention] | None,
        temporal: bool,
        num_heads: int,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        width = widths[-1]
        self.blocks = nn.ModuleList(
            build.block(before, 0 if number else skip_width, after)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        separable = build.temporal_mixing == "separable"
        self.mixers = nn.ModuleList(TemporalConv(width) for _ in self.blocks if separable)
        arguments = (width, num_heads, build.head_width, build.zero_exits)
        self.spatial = None if spatial is None else spatial(*arguments)
        self.cross = None if spatial is None else build.cross(width, num_heads)
        self.temporal = build.temporal(width, num_heads) if temporal else None
        self.checkpointing = checkpointing

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        num_frames: int,
        images: int,
        skip: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """x (B F, H, W, C), tokens (B, L, token_width); the first `images` samples of B see no
        other frame of theirs.
        """
        arguments = (x, embedding, num_frames, images, skip, tokens)
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(self.apply_layers, *arguments, use_reentrant=False)
            return output
        return self.apply_layers(*arguments)

    def apply_layers(
        self,
        x: Tensor,
        embedding: Tensor,
        num_frames: int,
        images: int,
        skip: Tensor | None,
        tokens: Tensor | None,
    ) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, embedding, num_frames, None if number else skip)
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
    return mixed.view(x.shape)


def fitting_heads(width: int, head_width: int) -> int:
    """As many heads of head_width channels as make up the width."""
    if head_width < 1 or width % head_width or head_width % 2:
        near = sorted(
            (d for d in range(2, width + 1, 2) if not width % d), key=lambda d: abs(d - head_width)
        )
        raise ValueError(
            f"head_width must be even and divide the width of each level, got {head_width} "
            f"for a level of {width} channels; set network.head_width to "
            f"{' or '.join(map(str, near[:2])) or 'an even number'}, or network.num_heads per level"
        )
    return width // head_width


def check_choice(name: str, given: str, choices: Collection[str]) -> None:
    """ValueError unless `given` is one of the choices."""
    if given not in choices:
        near = get_close_matches(given, choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"set network.{name} to one of them"
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {given!r}; {hint}")


def check_counts(num_blocks: list[int], num_heads: list[int], head_width: int) -> None:
    """ValueError unless there are blocks and heads, of an even number of channels."""
    if min(num_heads) < 1 or min(num_blocks) < 1 or head_width < 2 or head_width % 2:
        raise ValueError(
            "num_blocks and num_heads must be at least 1 and head_width even, got "
            f"{num_blocks}, {num_heads} and {head_width}; the nearest head_width "
            f"is {max(2, head_width + head_width % 2)}"
        )


def check_condition(name: str, given: Tensor | None, wanted: tuple[int | str, ...]) -> None:
    """ValueError unless the shape is the one that is wanted, with any L >= 1; where its last
    number is 0, the network takes none.
    """
    shape = None if given is None else tuple(given.shape)
    if shape is None:
        fits = wanted[-1] == 0
    else:
        fits = len(shape) == len(wanted) and 0 not in shape
        fits = fits and all(w in ("L", n) for w, n in zip(wanted, shape, strict=True))
    if not fits:
        axes = ", ".join(map(str, wanted))
        takes = (
            f"takes {name} of shape ({axes}) beside log-SNR" if wanted[-1] else f"takes no {name}"
        )
        option = f"network.{name.removesuffix('s')}_width"
        raise ValueError(
            f"this network {takes}, got {shape}; set {option} to their width, 0 for none"
        )


def check_condition_widths(
    vector_width: int, token_width: int, spatial_attention: list[str]
) -> None:
    """ValueError unless both can be, and there is attention where tokens are attended to."""
    if min(vector_width, token_width) < 0:
        raise ValueError(
            "vector_width and token_width must be 0, for none, or more, "
            f"got {vector_width} and {token_width}"
        )
    if token_width and set(spatial_attention) == {"none"}:
        raise ValueError(
            f"token_width={token_width} needs spatial attention at some level, got "
            f"{spatial_attention}; set the last to full, or network.token_width=0"
        )


def check_image_share(image_share: float, temporal_mixing: str) -> None:
    """ValueError unless the share is one, and frames can be left alone."""
    if not 0 <= image_share < 1:
        raise ValueError(f"image_share must lie in [0, 1), got {image_share}; 0 is clips alone")
    if image_share and temporal_mixing == "full":
        raise ValueError(
            f"3x3x3 convolutions cannot leave frames alone, got image_share={image_share} "
            "with temporal_mixing=full; choose temporal_mixing=separable, or image_share=0"
        )
