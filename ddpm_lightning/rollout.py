"""Rolling out: clips of any number of frames by a network that sees a few at a time.

Frames are sampled chunk by chunk. Each chunk holds as many frames as a clip of the run, of which
those that an earlier one has sampled, and those that are given, are known: no more than a chunk is
walked at a time, however long the clip. A loop ends in a chunk that knows both its ends.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.known import Known
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import noise_source
from ddpm_lightning.samplers.walk import Point, State

# From an estimator, a clip, what of it is known (Bool, broadcast against it) and noise like it.
MakeKnown = Callable[[Estimator, Tensor, Tensor, Tensor], Known]


class Plan(NamedTuple):
    """What is given, and how many frames are sampled.

    clip: (B or 1, C, N, H, W), standardised, of all N frames.   mask: Bool (N, H, W) or (N, 1, 1),
    what of it is known.   window: frames of a chunk.   strength: of all steps, the share at the end
    that is walked, from the clip with noise; 1 begins with noise alone.
    """

    clip: Tensor
    mask: Tensor
    window: int
    loop: bool = False
    strength: float = 1.0

    @property
    def num_frames(self) -> int:
        return self.clip.shape[2]

    def chunks(self) -> list[Tensor]:
        """Return the positions (window,) of the frames of each chunk, in order."""
        whole = self.mask.flatten(1).all(1)
        return list(chunks(whole, self.window, self.loop))


def chunks(known: Tensor, window: int, loop: bool) -> Iterator[Tensor]:
    """Yield the positions of the chunks that sample what is not known.

    A chunk begins half its length before the first frame that is missing; the last one ends with
    the clip, or, of a loop, has as many frames known on both sides.

    Args:
        known: (N,) Bool.   window: frames of a chunk, at most N.
    """
    known, overlap = known.clone(), window // 2
    num_frames, is_first = len(known), True
    while not known.all():
        missing = int((~known).nonzero()[0])
        left = num_frames - missing
        if is_first and missing < window:
            start = 0
        elif loop and left <= window - 2 * (overlap // 2):
            start = missing - (window - left) // 2
        else:
            start = missing - overlap
        start = start if loop else min(start, num_frames - window)
        positions = torch.arange(start, start + window) % num_frames
        known[positions], is_first = True, False
        yield positions


@torch.no_grad()
def roll_out(
    sampler: Sampler,
    estimator: Estimator,
    plan: Plan,
    generators: Sequence[torch.Generator],
    make_known: MakeKnown,
    device: torch.device | str = "cpu",
    callback: Callable[[State], None] | None = None,
) -> Tensor:
    """Return clips (B, C, N, H, W), standardised, on the CPU; what is given in them as it was.

    Args:
        generators: of the noise of each of the B clips.
        callback: receives the states of the first chunk's walk.
    """
    _, channels, num_frames, height, width = plan.clip.shape
    clips = plan.clip.expand(len(generators), -1, -1, -1, -1).clone()
    mask = plan.mask.expand(num_frames, *plan.mask.shape[1:]).clone()
    shape = (len(generators), channels, plan.window, height, width)
    draw = noise_source(shape, generators, device)
    process = estimator.process
    times = sampler.times(process, log_snr_floor(shape))
    times = times[first_step(plan.strength, len(times) - 1) :]
    start = Point.at(process, times[0])
    for positions in plan.chunks():
        clip, here = clips[:, :, positions].to(device), mask[positions].to(device)
        bent = make_known(estimator, clip, here[None, None], draw()) if here.any() else None
        if plan.strength < 1:
            x = sampler.diffuse(clip, start, process, draw)
        else:
            x = sampler.start(start, process, draw)
        x = sampler.walk(bent or estimator, x, times, draw, callback)
        clips[:, :, positions] = (bent.complete(x) if bent else x).cpu()
        mask[positions], callback = True, None
    return clips


def first_step(strength: float, num_intervals: int) -> int:
    """Return the number of the step at which a walk of this strength begins, 0 at strength 1."""
    return num_intervals - max(1, round(strength * num_intervals))
