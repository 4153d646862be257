"""A level for every frame: what prediction, interpolation and other continuations are trained on.

Of each clip one of three is drawn:

    alike         all frames at one level, as under any other times
    context       some frames are given, clean or nearly so, the others at one level
    independent   every frame at a level of its own (Chen et al. 2024, Diffusion Forcing)

The context is 1 to F - 1 frames, in a block that may run over the end to the beginning (a clip's
ends, for interpolation) or at random places. It is at a log-SNR within CONTEXT_LOG_SNR, so that a
context that was sampled itself is forgiven its errors, and it does not count in the loss: a sampler
puts the given frames in the place of its estimates.
"""

import torch
from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import Draws, Levels, TimeSampling
from ddpm_lightning.times.uniform_t import UniformTime

CONTEXT_LOG_SNR = (4.0, 12.0)  # the cleaner end is noise of a third of a grey level
STRATIFIED = UniformTime()


class FrameTimes(TimeSampling):
    """Draws the levels of frames.

    Args:
        law: of a level.
        alike, context, independent: shares of the clips; they add up to 1.
    """

    by_frame = True

    def __init__(
        self,
        law: TimeSampling = STRATIFIED,
        alike: float = 0.5,
        context: float = 0.35,
        independent: float = 0.15,
    ) -> None:
        super().__init__(law.stratified)
        shares = (alike, context, independent)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                "alike, context and independent must be 0 or more and add up to 1, "
                f"got {alike:g}, {context:g} and {independent:g}; 0.5, 0.35 and 0.15 are usual"
            )
        self.law = law
        self.alike, self.context, self.independent = shares

    def times(self, process: GaussianProcess, fraction: Tensor, floor: float) -> Tensor:
        return self.law.times(process, fraction, floor)

    def levels(
        self,
        process: GaussianProcess,
        draws: Draws,
        place: Tensor,
        batch_size: int,
        floor: float,
        num_frames: int,
    ) -> Levels:
        kind, count, is_block, log_snr, *places = draws.more(4 + num_frames).unbind(1)
        of_frames = torch.stack(places, 1)  # (B, F)
        t = self.draw(process, draws.uniform(), place, batch_size, floor)
        t = t[:, None].expand(-1, num_frames)
        own = self.times(process, of_frames.flatten(), floor).view_as(of_frames)
        t = torch.where((kind >= 1 - self.independent)[:, None], own, t)

        in_context = _context(count, is_block < 0.5, of_frames)
        in_context &= ((kind >= self.alike) & (kind < 1 - self.independent))[:, None]
        low, high = CONTEXT_LOG_SNR
        clean = Level.at(low + (high - low) * log_snr[:, None])
        level = Level(
            *(torch.where(in_context, a, b) for a, b in zip(clean, process.level(t), strict=True))
        )
        return Levels(torch.where(in_context, 0, t), level, ~in_context)


def _context(count: Tensor, is_block: Tensor, of_frames: Tensor) -> Tensor:
    """Return which frames (B, F) make up a context, 1 to F - 1 of them; none of a single frame.

    Args:
        count: (B,) draws of how many.   is_block: (B,), else at random places.
        of_frames: (B, F) draws of where.
    """
    num_frames = of_frames.shape[1]
    num_context = 1 + (count * (num_frames - 1)).floor()[:, None]
    start = (of_frames[:, :1] * num_frames).floor()
    in_block = (torch.arange(num_frames) - start) % num_frames < num_context
    at_random = of_frames.argsort(1).argsort(1) < num_context
    return torch.where(is_block[:, None], in_block, at_random) & (num_frames > 1)
