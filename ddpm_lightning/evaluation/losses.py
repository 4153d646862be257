"""Validation loss on fixed (t, noise) pairs, in bins of log-SNR.

A clip's pairs depend on its place in the data set alone: not on the batch it is in, the epoch or
the run. Two runs of one process, schedule and objective therefore see the very same pairs; between
others, compare the error of the x_0 estimate bin by bin.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess

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
    process: GaussianProcess, index: Tensor, draw: int, num_draws: int, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return steps t (B,), evenly over the informative ones, and noise (B, *shape), on the CPU.

    Args:
        index: (B,) of the clips in their data set.
        draw: which of the num_draws pairs of each clip.
    """
    number = index.cpu() * num_draws + draw
    position = ((number.double() + 0.5) * GOLDEN_RATIO).frac()
    t = process.informative_time(position, log_snr_floor((1, *shape)))
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(n))) for n in number]
    return t, torch.stack(noise)


class LossByLogSNR:
    """Sums per-sample losses, and squared errors of the x_0 estimate, in bins of log-SNR."""

    def __init__(self) -> None:
        # rows: count, loss, squared error of the x_0 estimate; float64, on the CPU
        self.sums = torch.zeros(3, len(LOG_SNR_EDGES) + 1, dtype=torch.float64)

    def update(self, denoiser: Denoiser, batch: Batch, num_draws: int) -> None:
        """Adds num_draws fixed pairs of every clip of the batch."""
        x_0 = to_float(batch.clip)
        for draw in range(num_draws):
            t, noise = fixed_pairs(denoiser.process, batch.index, draw, num_draws, x_0.shape[1:])
            level = denoiser.process.level(t)
            loss = denoiser.loss(x_0, level, noise.to(x_0.device)).cpu().double()
            error = loss * denoiser.squared_error_per_loss(level)
            where = bin_of(level.log_snr)
            self.sums.index_add_(1, where, torch.stack([torch.ones_like(loss), loss, error]))

    def mean(self) -> dict[str, float]:
        """Return the means over all samples: loss and clean_mse, the mean squared error of x_0."""
        count, loss, error = self.sums.sum(1).tolist()
        return {"loss": loss / count, "clean_mse": error / count}

    def by_bin(self) -> list[dict[str, float | str]]:
        """Return, for each bin that holds samples: log_snr (its name), count, loss, clean_mse."""
        return [
            {"log_snr": name, "count": count, "loss": loss / count, "clean_mse": error / count}
            for name, (count, loss, error) in zip(bin_names(), self.sums.T.tolist(), strict=True)
            if count
        ]


@torch.no_grad()
def evaluate(
    denoiser: Denoiser, batches: Iterable[Batch], num_draws: int, device: torch.device | str
) -> LossByLogSNR:
    """Return the losses of a denoiser in evaluation mode over all batches of uint8 clips."""
    losses = LossByLogSNR()
    for batch in batches:
        losses.update(denoiser, batch._replace(clip=batch.clip.to(device)), num_draws)
    return losses
