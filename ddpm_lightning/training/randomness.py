"""What is random in a training step: a function of the seed, the step and the sample's number.

The number counts the samples drawn before it, over all devices, so neither a restart nor another
number of devices changes a draw. Windows, flips and captions are keyed likewise, in data.dataset.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddpm_lightning.data.draws import uniform

_STREAM = 2**32  # added to the seed, which is less: no draw is one of data.dataset's
_STEP = 2**40  # more samples than any run draws
_LANES = 4  # of what every step draws


class StepDraws:
    """Draws of one optimizer step on the samples with these numbers, (B,)."""

    def __init__(self, seed: int, step: int, numbers: Sequence[int]) -> None:
        self._seed = seed + _STREAM
        self._keys = np.asarray(numbers, dtype=np.uint64) + np.uint64(_STEP * step)
        self._draws = uniform(self._seed, self._keys, num_lanes=_LANES)

    def uniform(self) -> Tensor:
        """(B,) in [0, 1), float64."""
        return torch.from_numpy(self._draws[:, 0].copy())

    def more(self, count: int) -> Tensor:
        """(B, count) others in [0, 1), float64."""
        return torch.from_numpy(uniform(self._seed, self._keys, _LANES + count)[:, _LANES:].copy())

    def generators(self, device: torch.device) -> list[torch.Generator]:
        """One for each sample, on the device."""
        seeds = (self._draws[:, 1] * 2**53).astype(np.int64).tolist()
        return [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def wishes(self) -> Tensor:
        """(B,) in [0, 1), float64: whether a clip's wishes are dropped."""
        return torch.from_numpy(self._draws[:, 3].copy())

    def seed(self) -> int:
        """Return a seed for all else that is random in training on these samples: dropout, say."""
        return int(self._draws[0, 2] * 2**53)
