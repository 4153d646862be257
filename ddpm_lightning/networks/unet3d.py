"""UNet3D: a spatio-temporal U-Net for short clips, (B, C, F, H, W) and log-SNR (B,) or (B, F) ->
(B, C, F, H, W).

Factorised: convolutions and spatial attention within frames, temporal attention (and, if asked for,
convolution) along each pixel (as in Ho et al. 2022, Video Diffusion Models). Time keeps its
resolution, so any F works; H and W must be divisible by the stride, patch x 2^(levels - 1).
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ddpm_lightning.networks.attention import Spatial
from ddpm_lightning.networks.blocks import CONVOLUTIONS, Norm, ResidualBlock, modulate
from ddpm_lightning.networks.checks import check_condition, fitting_heads, per_level
from ddpm_lightning.networks.kernels.precision import autocast_once
from ddpm_lightning.networks.layers import Downsample, LogSNREmbedding, Resampling, Upsample
from ddpm_lightning.networks.stage import Build, Mixing, Stage, StageOptions, over_time

STAGES = ("down", "middle", "up")


class UNet3D(nn.Module):
    """Predicts clips; the defaults, for 8 frames of 16x16, are conf/network/unet3d_tiny.yaml.

    What is per level is one value for all levels, or a list with one for each.

    Args:
        channels: of a clip, 1 or 3.
        out_channels: of the output, as many as `channels` if None; twice as many where the variance
            is learned, in the second half.
        base_width: channels of the first level.
        width_multipliers: a list, one per level; each level below the first halves H and W.
        patch: side of the pixel blocks that enter, and leave, as the channels of one position; the
            network then works on H / patch x W / patch positions.
        num_blocks: residual blocks per level, on the way down and up again.
        spatial_attention: per level linear, full, windowed or none; the middle's is full where
            there is any at the last level.
        temporal_attention: per level, whether the frames of a pixel attend to one another.
        head_width: channels of an attention head, even.
        num_heads: per level; None: as many as make up the level's width.
        norm: rms, group or magnitude.
        resampling: shuffle, strided or area.
        temporal_mixing: none; separable, a temporal convolution after each residual block, the
            identity at the start; or full, 3x3x3 convolutions.
        wide_ends: temporal attention after the first convolution, and before the last one a
            residual block that also sees what entered.
        zero_exits: residual branches start at zero.
        image_share: of a training batch, by lot, whose frames are treated as images: nothing that
            mixes frames is applied.
        vector_width: of further conditions (class, text, frame rate), 0 for none.
        token_width: of a list of conditions (the words of a text), which positions attend to where
            there is spatial attention; 0 for none.
        checkpointing: per level, whether activations are recomputed for the gradient.
    """

    def __init__(
        self,
        channels: PositiveInt,
        out_channels: PositiveInt | None = None,
        base_width: PositiveInt = 48,
        width_multipliers: Annotated[Sequence[PositiveInt], Field(min_length=1)] = (1, 2, 2),
        patch: PositiveInt = 2,
        num_blocks: PositiveInt | Sequence[PositiveInt] = 1,
        spatial_attention: Spatial | Sequence[Spatial] = ("none", "full", "full"),
        temporal_attention: bool | Sequence[bool] = True,
        head_width: Annotated[int, Field(ge=2, multiple_of=2)] = 24,
        num_heads: PositiveInt | Sequence[PositiveInt] | None = None,
        norm: Norm = "rms",
        resampling: Resampling = "shuffle",
        temporal_mixing: Mixing = "none",
        wide_ends: bool = False,
        zero_exits: bool = True,
        image_share: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        vector_width: NonNegativeInt = 0,
        token_width: NonNegativeInt = 0,
        checkpointing: bool | Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        levels = len(width_multipliers)
        out_channels = channels if out_channels is None else out_channels
        widths = [base_width * multiplier for multiplier in width_multipliers]
        if num_heads is None:
            num_heads = [fitting_heads(width, head_width) for width in widths]
        by_level: list[list[Any]] = [
            per_level("num_blocks", num_blocks, levels),
            per_level("spatial_attention", spatial_attention, levels),
            per_level("temporal_attention", temporal_attention, levels),
            per_level("num_heads", num_heads, levels),
            per_level("checkpointing", checkpointing or False, levels),
        ]
        stages = [StageOptions._make(options) for options in zip(widths, *by_level, strict=True)]
        if token_width and all(stage.spatial == "none" for stage in stages):
            raise ValueError(
                f"token_width={token_width} needs spatial attention at some level; set "
                "network.spatial_attention=full, or network.token_width=0"
            )
        if image_share and temporal_mixing == "full":
            raise ValueError(
                f"3x3x3 convolutions cannot leave frames alone, got image_share={image_share} "
                "with temporal_mixing=full; choose temporal_mixing=separable, or image_share=0"
            )
        embedding_width = 4 * base_width
        self.patch = patch
        self.stride = patch * 2 ** (levels - 1)
        self.channels, self.out_channels = channels, out_channels
        self.image_share = image_share
        self.vector_width, self.token_width = vector_width, token_width
        self.embedding = LogSNREmbedding(embedding_width, vector_width)
        build = Build(embedding_width, head_width, norm, temporal_mixing, zero_exits, token_width)
        self.entry = nn.Conv2d(channels * patch**2, base_width, 3, padding=1)
        heads = stages[0].num_heads
        self.entry_attention = build.temporal(base_width, heads) if wide_ends else None
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        above = [base_width, *widths[:-1]]  # of each level, the width of the one before it
        for level, stage in enumerate(stages):
            if level:
                self.shrink.append(Downsample(above[level], resampling))
            self.down.append(Stage(build, stage, level, above[level], stage.width, 0))
        middle: Spatial = "none" if stage.spatial == "none" else "full"
        last = stage._replace(num_blocks=1, spatial=middle)
        self.middle = Stage(build, last, level, last.width, last.width, 0)
        self.middle_exit = build.block(last.width, 0, last.width)
        for level, stage in reversed(list(enumerate(stages))):
            self.up.append(Stage(build, stage, level, stage.width, above[level], stage.width))
            if level:
                self.grow.append(Upsample(above[level], resampling))
        self.exit_block = build.block(base_width, base_width, base_width) if wide_ends else None
        self.exit = CONVOLUTIONS[norm](base_width, out_channels * patch**2)
        self.exit.zero()
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        vectors: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Return the output (B, out_channels, F, H, W), float32.

        Args:
            x: (B, C, F, H, W).   log_snr: (B,), or (B, F): a level for every frame.
            vectors: (B, vector_width).   tokens: (B, L, token_width), whose order does not matter.
        """
        self.check_size(*x.shape[-2:])
        if (own := x.shape[1]) != self.channels:
            raise ValueError(
                f"clips have {own} channels, not {self.channels}: network.channels={own}"
            )
        clips = x.shape[0]  # which torch.export keeps variable; len(x) is a number to it
        check_condition("vectors", vectors, (clips, self.vector_width))
        check_condition("tokens", tokens, (clips, "L", self.token_width))
        # A compiler then knows which sizes are one.
        if log_snr.shape != (clips,) and log_snr.shape != (clips, x.shape[2]):
            raise ValueError(
                f"{clips} clips of {x.shape[2]} frames need as many log-SNRs, ({clips},) or "
                f"({clips}, {x.shape[2]}), got {tuple(log_snr.shape)}"
            )
        images = round(self.image_share * clips) if self.training else 0
        if images:  # by lot: where a clip stands in its batch may say how noisy it is
            order = torch.randperm(clips, device=x.device)
            x, log_snr = x[order], log_snr[order]
            vectors = None if vectors is None else vectors[order]
            tokens = None if tokens is None else tokens[order]
        with autocast_once(x, self.outside_stages):
            output = self.apply_layers(x, log_snr, vectors, tokens, images)
        return output[order.argsort()] if images else output

    def apply_layers(
        self,
        x: Tensor,
        log_snr: Tensor,
        vectors: Tensor | None,
        tokens: Tensor | None,
        images: int,
    ) -> Tensor:
        """Return the output of `forward`; in the first `images` clips no frame sees another."""
        clips, _, num_frames = x.shape[:3]
        if log_snr.dim() == 1:  # the same operators: to the bit what (B, F) is
            log_snr = log_snr[:, None].expand(-1, num_frames)
        dtype = self.entry.weight.dtype
        x = x.to(dtype)
        vectors, tokens = (None if t is None else t.to(dtype) for t in (vectors, tokens))
        modulations = modulate(self.residual_blocks(), self.embedding(log_snr, vectors))
        x = pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), self.patch)
        x = self.entry(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        if self.entry_attention is not None:
            x = over_time(self.entry_attention, x, num_frames, images)
        entered = x
        skips = []

        def apply(stage: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
            own = [modulations.pop(0) for _ in stage.blocks]
            output: Tensor = stage(x, own, num_frames, images, skip, tokens)
            return output

        for level, stage in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            x = apply(stage, x)
            skips.append(x)
        x = apply(self.middle, x)
        x = self.middle_exit(x, modulations.pop(0), num_frames)
        for step, stage in enumerate(self.up):
            if step:
                x = self.grow[step - 1](x)
            x = apply(stage, x, skips.pop())
        if self.exit_block is not None:
            x = self.exit_block(x, modulations.pop(0), num_frames, entered)
        x = pixel_shuffle(self.exit(x).permute(0, 3, 1, 2).float(), self.patch)
        output: Tensor = x.unflatten(0, (clips, num_frames)).transpose(1, 2).contiguous()
        return output

    def residual_blocks(self) -> list[ResidualBlock]:
        """Return the residual blocks, in the order in which they are applied."""
        before: Any = [*self.down, self.middle]
        after: Any = self.up
        blocks = [block for stage in before for block in stage.blocks]
        blocks += [self.middle_exit, *(block for stage in after for block in stage.blocks)]
        return blocks if self.exit_block is None else [*blocks, self.exit_block]

    def outside_stages(self) -> list[nn.Module]:
        """Return the layers that no stage casts."""
        others = [child for name, child in self.named_children() if name not in STAGES]
        return [*others, *(block.modulation for block in self.residual_blocks())]

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless height and width, in pixels, fit the stride."""
        for name, size in (("height", height), ("width", width)):
            if size % self.stride:
                low = max(size // self.stride, 1) * self.stride
                raise ValueError(
                    f"frame {name} must be divisible by the network's stride {self.stride}, "
                    f"got {size}; set data.size to {low} or {low + self.stride}"
                )
