"""The loss that is trained, on fixed (t, noise) pairs of clips held out, in bins of log-SNR.

A clip's pairs depend on its place in the data set alone: not on the batch it is in, the epoch or
the run. It can be compared between runs of one process, schedule, objective, loss and times;
between others, compare the error at fixed levels (evaluation.levels).
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.times.base import TimeSampling

LOG_SNR_EDGES = (-8.0, -4.0, 0.0, 4.0, 8.0)
GOLDEN_RATIO = (5**0.5 - 1) / 2  # multiples of it, mod 1, fill the unit interval evenly


def bin_names() -> list[str]:
    """Return the names of the bins between the edges, lowest log-SNR (most noise) first."""
    edges = [f"{edge:g}" for edge in LOG_SNR_EDGES]
    inner = [f"{low}_to_{high}" for low, high in pairwise(edges)]
    return [f"below_{edges[0]}", *inner, f"above_{edges[-1]}"]


def bin_of(log_snr: Tensor) -> Tensor:
    """Return the bin (B,) that each log-SNR, (B,) float64, lies in."""
    return torch.bucketize(log_snr, log_snr.new_tensor(LOG_SNR_EDGES), right=True)


def fixed_pairs(
    times: TimeSampling,
    process: GaussianProcess,
    index: Tensor,
    draw: int,
    num_draws: int,
    shape: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Return times t (B,), evenly over the law that is trained, and noise (B, *shape), on the CPU.

    Args:
        index: (B,) of the clips in their data set.
        draw: which of the num_draws pairs of each clip.
    """
    number = index.cpu() * num_draws + draw
    position = ((number.double() + 0.5) * GOLDEN_RATIO).frac()
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(n))) for n in number]
    return times.times(process, position, log_snr_floor((1, *shape))), torch.stack(noise)


@torch.no_grad()
def fixed_losses(
    denoiser: Denoiser,
    loss: Loss,
    times: TimeSampling,
    x_0: Tensor,
    index: Tensor,
    num_draws: int,
    **conditions: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield log-SNR and loss (B,), float64 on the CPU, of each of num_draws fixed pairs.

    Args:
        x_0: standardised clips (B, ...).   index: (B,) of them in their data set.
    """
    for draw in range(num_draws):
        t, noise = fixed_pairs(times, denoiser.process, index, draw, num_draws, x_0.shape[1:])
        level = denoiser.process.level(t)
        losses = loss(denoiser, x_0, t, level, noise.to(x_0.device), **conditions)
        yield level.log_snr, losses.cpu().double()


class LossByLogSNR:
    """Sums per-sample losses in bins of log-SNR.

    Args:
        loss, times: those of training.
    """

    def __init__(self, loss: Loss, times: TimeSampling) -> None:
        self.loss, self.times = loss, times
        # rows: count, loss; float64, on the CPU
        self.sums = torch.zeros(2, len(LOG_SNR_EDGES) + 1, dtype=torch.float64)

    def update(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        index: Tensor,
        num_draws: int,
        **conditions: Tensor,
    ) -> None:
        """Add num_draws fixed pairs of standardised clips x_0 (B, ...) with places index (B,)."""
        losses = fixed_losses(denoiser, self.loss, self.times, x_0, index, num_draws, **conditions)
        for log_snr, loss in losses:
            self.sums.index_add_(1, bin_of(log_snr), torch.stack([torch.ones_like(loss), loss]))

    def mean(self) -> float:
        """Return the mean over all samples."""
        count, loss = self.sums.sum(1).tolist()
        return float(loss / count)

    def by_bin(self) -> dict[str, tuple[int, float]]:
        """Return the count and the mean loss of each bin that holds samples, by its name."""
        sums = zip(bin_names(), self.sums.T.tolist(), strict=True)
        return {name: (int(count), loss / count) for name, (count, loss) in sums if count}
