"""UNet3D: a spatio-temporal U-Net for short clips, (B, C, F, H, W) and log-SNR (B,) -> (B, C, F, H,
W).

Factorised: 2D convolutions and spatial attention on folded frames, temporal attention along each
pixel (as in Ho et al. 2022, Video Diffusion Models). Time keeps its resolution, so any F works; H
and W must be divisible by the stride, patch x 2^(levels - 1).
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ddpm_lightning.networks.layers import (
    LogSNREmbedding,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    group_norm,
    zeroed,
)


class UNet3D(nn.Module):
    """The shared network.

    Args:
        channels: of a clip, 1 or 3.
        outputs: per channel, side by side along C; 2 where the variance is learned.
        base_width: channels of the first level.
        width_multipliers: one per level; each level below the first halves H and W.
        patch: side of the pixel blocks that enter, and leave, as the channels of one position; the
            network then works on H / patch x W / patch positions.
        num_blocks: stages (residual block and attention) per level, on the way down and up again.
        spatial_attention: per level, whether frames attend within themselves.
        head_width: channels of an attention head.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        base_width: int,
        width_multipliers: list[int],
        patch: int,
        num_blocks: int,
        spatial_attention: list[bool],
        head_width: int,
    ) -> None:
        super().__init__()
        counts = (channels, outputs, base_width, patch, num_blocks, len(width_multipliers))
        if min(counts) < 1:
            raise ValueError(
                "channels, outputs, base_width, patch, num_blocks and the number of levels must "
                f"be at least 1, got {', '.join(map(str, counts))}"
            )
        if len(spatial_attention) != len(width_multipliers):
            raise ValueError(
                f"spatial_attention needs one entry per level: {len(width_multipliers)} levels "
                f"(width_multipliers={list(width_multipliers)}), got {list(spatial_attention)}"
            )
        widths = [base_width * multiplier for multiplier in width_multipliers]
        embedding_width = 4 * base_width
        self.patch = patch
        self.stride = patch * 2 ** (len(widths) - 1)
        self.embedding = LogSNREmbedding(embedding_width)
        self.entry = nn.Conv2d(channels * patch**2, base_width, 3, padding=1)

        def stage(in_width: int, out_width: int, level: int) -> Stage:
            return Stage(in_width, out_width, embedding_width, spatial_attention[level], head_width)

        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        width = base_width
        for level, out_width in enumerate(widths):
            if level:
                self.down.append(Downsample(width))
            for _ in range(num_blocks):
                self.down.append(stage(width, out_width, level))
                width = out_width
        self.middle = stage(width, width, len(widths) - 1)
        for level, out_width in reversed(list(enumerate(widths))):
            for _ in range(num_blocks):
                self.up.append(stage(width + out_width, out_width, level))
                width = out_width
            if level:
                self.up.append(Upsample(width))
        self.exit = nn.Sequential(
            group_norm(width),
            nn.SiLU(),
            zeroed(nn.Conv2d(width, outputs * channels * patch**2, 3, padding=1)),
            nn.PixelShuffle(patch),
        )

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x (B, C, F, H, W), log_snr (B,) -> (B, outputs x C, F, H, W)."""
        num_frames = x.shape[2]
        self.check_size(*x.shape[-2:])
        embedding = self.embedding(log_snr)
        x = rearrange(x, "b c f y x -> (b f) c y x")
        x = self.entry(pixel_unshuffle(x, self.patch))
        skips = []
        for layer in self.down:
            x = layer(x, embedding, num_frames)
            if layer.has_skip:
                skips.append(x)
        x = self.middle(x, embedding, num_frames)
        for layer in self.up:
            if layer.has_skip:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, embedding, num_frames)
        output: Tensor = rearrange(self.exit(x), "(b f) c y x -> b c f y x", f=num_frames)
        return output

    def check_size(self, height: int, width: int) -> None:
        """ValueError unless height and width, in pixels, fit the stride."""
        for name, size in (("height", height), ("width", width)):
            if size % self.stride:
                low = max(size // self.stride, 1) * self.stride
                raise ValueError(
                    f"frame {name} must be divisible by the network's stride {self.stride}, "
                    f"got {size}; set data.size to {low} or {low + self.stride}"
                )


class Stage(nn.Module):
    """A residual block, spatial attention where asked for, and temporal attention."""

    has_skip = True  # from each stage on the way down to its like on the way up

    def __init__(
        self,
        in_width: int,
        out_width: int,
        embedding_width: int,
        spatial_attention: bool,
        head_width: int,
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(in_width, out_width, embedding_width)
        self.spatial = (
            SpatialAttention(out_width, head_width) if spatial_attention else nn.Identity()
        )
        self.temporal = TemporalAttention(out_width, head_width)

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        x = self.spatial(self.block(x, embedding))
        output: Tensor = self.temporal(x, num_frames)
        return output


class Downsample(nn.Module):
    """Halves H and W by a strided convolution."""

    has_skip = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        output: Tensor = self.conv(x)
        return output


class Upsample(nn.Module):
    """Doubles H and W: a convolution to four times the channels, shuffled into 2 x 2 pixels."""

    has_skip = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        output: Tensor = self.shuffle(self.conv(x))
        return output
