"""Statistics of the training clips: the space in which forward process and network live.

    x = (v - mean) / std / 2,   v in [-1, 1] the values of a clip, mean per channel, std of all

has mean 0 and standard deviation DATA_STD = 1/2, whatever the brightness of the GIFs: emoji have
mean +0.65, moving digits -0.76. Clips are standardised on their way in and restored on their way
out; what knows the range of bytes, such as thresholding, asks for values.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ddpm_lightning.data.clip import to_float, to_uint8

DATA_STD = 0.5  # of standardised clips; Karras et al. 2022, table 1
GREY_LEVEL = 2 / 255  # the least std: clips of one colour have none


class Statistics(nn.Module):
    """Mean and standard deviation of values in [-1, 1]; until measured, standardising is no change.

    They are buffers: a checkpoint and an export hold them, and ranks train with those of rank 0.
    """

    mean: Tensor  # (3,): of red, green and blue, or of grey three times
    std: Tensor  # ()

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.tensor(DATA_STD))

    def measure(self, clips: Iterable[Tensor]) -> None:
        """Set mean and std to those of clips, uint8 (F, H, W, C): exact, in whole numbers."""
        count, total, squares = 0, torch.zeros(3, dtype=torch.int64), 0
        for clip in clips:
            values = clip.reshape(-1, clip.shape[-1]).expand(-1, 3).to(torch.int64)
            count += len(values)
            total += values.sum(0)
            squares += int(values.square().sum())
        if not count:
            raise ValueError("there is no clip to measure the mean and deviation of")
        mean = total.double() / count  # in bytes
        variance = squares / (3 * count) - mean.square().mean()
        self.mean.copy_(mean / 127.5 - 1)
        self.std.fill_(max(float(variance.clamp(min=0).sqrt()) / 127.5, GREY_LEVEL))

    @property
    def scale(self) -> float:
        """Return what a difference of values is multiplied by."""
        return DATA_STD / float(self.std)

    def standardise(self, clips: Tensor) -> Tensor:
        """Return x (B, C, F, H, W), float32, of clips uint8 (B, F, H, W, C)."""
        return self.from_values(to_float(clips))

    def restore(self, x: Tensor) -> Tensor:
        """Return clips uint8 (B, F, H, W, C) of x (B, C, F, H, W), clamped and rounded."""
        return to_uint8(self.to_values(x))

    def from_values(self, values: Tensor) -> Tensor:
        """Return x (B, C, ...) of values in [-1, 1]."""
        return (values - self._mean_like(values)) * (DATA_STD / self.std)

    def to_values(self, x: Tensor) -> Tensor:
        """Return values (B, C, ...), which a model may take beyond [-1, 1]."""
        return x * (self.std / DATA_STD) + self._mean_like(x)

    def _mean_like(self, x: Tensor) -> Tensor:
        mean = self.mean if x.dim() > 1 and x.shape[1] == 3 else self.mean[:1]
        return mean.reshape(-1, *[1] * (x.dim() - 2))

    def __str__(self) -> str:
        mean = ", ".join(dict.fromkeys(f"{m:.2f}" for m in self.mean.tolist()))
        return f"mean {mean}, standard deviation {float(self.std):.2f}"
