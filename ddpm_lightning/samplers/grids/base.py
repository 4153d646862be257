"""What a grid is: times t_0 > t_1 > .. > t_n = 0 along which log-SNR rises strictly.

It starts where log-SNR first falls to the floor, or at the end of the process, and comes to data
from there; nothing beyond is visited, because no information is left there. Just above the floor
there is hardly any: the rule of a grid spreads the times over what lies INFORMATIVE above it, and
then its first time is moved to the floor, so that the floor costs no calls.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis

# Of log-SNR above the floor. What the d values of a clip share has, at a std of 1/2, 1.2 % of the
# noise's variance there: one step from the floor to it loses 0.6 % of its std.
INFORMATIVE = 9.0


class Grid(ABC):
    """Spreads times evenly in some coordinate, and takes the usable ones closest to them."""

    def times(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        """Return falling times (num_intervals + 1,), the last one 0; whole numbers for a chain.

        Raises:
            ValueError: where the axis has fewer.
        """
        wanted = self.wanted(axis, num_intervals)
        wanted[-1] = axis.last
        chosen = axis.select(wanted)
        return torch.cat([chosen.new_zeros(1), chosen]).flip(0)

    @abstractmethod
    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        """Return ideal ascending times (num_intervals,) above 0; `times` replaces the last."""


def ramp(num_intervals: int) -> Tensor:
    """Return 1/n, 2/n .. 1, float64."""
    return torch.arange(1, num_intervals + 1, dtype=torch.float64) / num_intervals


def levels(axis: TimeAxis) -> tuple[float, float]:
    """Return log-SNR at the cleanest and at the noisiest informative time."""
    high, low = axis.log_snr(torch.tensor([axis.first, axis.last], dtype=torch.float64)).tolist()
    return high, min(high, max(low, axis.floor + INFORMATIVE))


def noisiest(axis: TimeAxis) -> float:
    """Return the noisiest informative time."""
    return float(axis.at_log_snr(torch.tensor(levels(axis)[1], dtype=torch.float64)))


def span(num_intervals: int) -> Tensor:
    """Return 0 (cleanest time) to 1 (noisiest) in equal steps; 1 alone for a single interval."""
    if num_intervals == 1:
        return torch.ones(1, dtype=torch.float64)
    return torch.linspace(0, 1, num_intervals, dtype=torch.float64)
