"""Ten corruptions of real clips, each a way in which a model fails: what a measure sees of them.

A corruption maps clips (N, F, H, W, C) uint8 to as many, with a generator for what it draws. Its
strength is small enough that a viewer has to look twice, but for those that break all motion.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur

Corruption = Callable[[Tensor, Generator], Tensor]


def noise(clips: Tensor, generator: Generator) -> Tensor:
    """Add noise of 8 grey levels to each value."""
    noisy: Tensor = clips + 8 * torch.randn(clips.shape, generator=generator)
    return noisy.round().clamp(0, 255).byte()


def blur(clips: Tensor, generator: Generator) -> Tensor:
    """Blur each frame by a Gaussian of 1 pixel."""
    blurred: Tensor = gaussian_blur(clips.movedim(-1, -3), [5, 5], [1.0, 1.0])
    return blurred.movedim(-3, -1)


def shift(clips: Tensor, generator: Generator) -> Tensor:
    """Move each clip by an eighth of its width, left or right, round the edge."""
    distance = clips.shape[3] // 8
    right = torch.rand(len(clips), generator=generator) < 0.5
    sides = right[:, None, None, None, None]
    return torch.where(sides, clips.roll(distance, 3), clips.roll(-distance, 3))


def jitter(clips: Tensor, generator: Generator) -> Tensor:
    """Move each frame by up to a thirty-second of its size, at least a pixel, in any direction."""
    reach = max(1, min(clips.shape[2:4]) // 32)
    offsets = torch.randint(-reach, reach + 1, (*clips.shape[:2], 2), generator=generator)
    moved = [
        torch.stack([frame.roll(offset, (0, 1)) for frame, offset in zip(clip, path, strict=True)])
        for clip, path in zip(clips, offsets.tolist(), strict=True)
    ]
    return torch.stack(moved)


def shuffle(clips: Tensor, generator: Generator) -> Tensor:
    """Put the frames of each clip in a random order."""
    order = torch.rand(clips.shape[:2], generator=generator).argsort(1)
    return clips[torch.arange(len(clips))[:, None], order]


def freeze(clips: Tensor, generator: Generator) -> Tensor:
    """Let each clip stand still from its middle on."""
    middle = clips.shape[1] // 2
    return clips[:, torch.arange(clips.shape[1]).clamp(max=middle)]


def reverse(clips: Tensor, generator: Generator) -> Tensor:
    """Play each clip backwards."""
    return clips.flip(1)


def cut(clips: Tensor, generator: Generator) -> Tensor:
    """Go on with the second half of another clip from the middle on."""
    middle = clips.shape[1] // 2
    order = torch.randperm(len(clips), generator=generator)
    others = torch.empty_like(order)
    others[order] = order.roll(1)  # one cycle, in which no clip follows itself
    return torch.cat([clips[:, :middle], clips[others, middle:]], 1)


def lost_modes(clips: Tensor, generator: Generator) -> Tensor:
    """Draw, with replacement, from the darker half of the clips alone."""
    brightness = clips.float().mean((1, 2, 3, 4))
    darker = clips[brightness <= brightness.median()]
    return darker[torch.randint(len(darker), (len(clips),), generator=generator)]


def copies(clips: Tensor, generator: Generator) -> Tensor:
    """Put the clips in another order: of *training* clips, what a model does that knows no more."""
    return clips[torch.randperm(len(clips), generator=generator)]


CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        noise,
        blur,
        shift,
        jitter,
        shuffle,
        freeze,
        reverse,
        cut,
        lost_modes,
        copies,
    )
}
