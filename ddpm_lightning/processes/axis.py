"""Where a walk may stop: times along which log-SNR falls strictly, from data down to the floor.

A chain offers steps, and not all of them: where its log-SNR rises at single steps (the median chain
under hybrid noise) only those count that are cleaner than every later one. A continuous process
offers every time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

MIN_FALL = 1e-9  # of log-SNR from one usable step to the next; round-off is not a fall
BISECTIONS = 100
NO_NOISE = (
    "the schedule adds no noise at any step, so there is nothing to sample; each noise= does with "
    "the options of its file"
)


class TimeAxis(ABC):
    """Usable times, between the cleanest and the noisiest, and their log-SNR."""

    first: float  # cleanest usable time; log-SNR is finite from here on
    last: float  # noisiest: at the log-SNR floor, or the end
    floor: float  # of log-SNR
    num_steps: float  # from data to `last`, in steps between neighbours

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """Return the log-SNR of usable times, float64; the floor where it is lower."""

    @abstractmethod
    def at_log_snr(self, level: Tensor) -> Tensor:
        """Return the usable times at which log-SNR takes these levels, or comes closest."""

    @abstractmethod
    def at_fraction(self, fraction: Tensor) -> Tensor:
        """Return the usable times at fractions in [0, 1) of their number, or of the way."""

    @abstractmethod
    def before(self, t: Tensor) -> Tensor:
        """Return the neighbours of usable times t, one step cleaner; 0 before the cleanest."""

    @abstractmethod
    def select(self, wanted: Tensor) -> Tensor:
        """Return distinct usable times (n,), each close to the wanted one; both ascending.

        Raises:
            ValueError: where there are fewer than n.
        """


class DiscreteAxis(TimeAxis):
    """The usable steps of a chain with this table of log-SNR at t = 0..T."""

    def __init__(self, log_snr: Tensor, floor: float) -> None:
        table = log_snr[: first_at_most(log_snr, floor) + 1]
        table = table[: int(table.argmin()) + 1]
        later = table.flip(0).cummax(0).values.flip(0)[1:]
        cleaner = torch.cat([table[:-1] > later + MIN_FALL, torch.ones(1, dtype=torch.bool)])
        # infinite: data itself, at t = 0 and wherever nothing was added yet
        self.steps = (cleaner & table.isfinite()).nonzero().flatten()
        if not len(self.steps):
            raise ValueError(NO_NOISE)
        self.first, self.last = int(self.steps[0]), int(self.steps[-1])
        self.num_steps = len(self.steps)
        self.floor = floor
        self._table = log_snr.clamp(min=floor)
        self._levels = self._table[self.steps]

    def log_snr(self, t: Tensor) -> Tensor:
        return self._table[t.long()]

    def at_log_snr(self, level: Tensor) -> Tensor:
        return self.steps[_nearest(-self._levels, -level)]

    def at_fraction(self, fraction: Tensor) -> Tensor:
        return self.steps[(fraction * len(self.steps)).long().clamp(max=len(self.steps) - 1)]

    def before(self, t: Tensor) -> Tensor:
        path = torch.cat([torch.zeros(1, dtype=torch.int64), self.steps])
        return path[torch.searchsorted(self.steps, t.long())]

    def select(self, wanted: Tensor) -> Tensor:
        count, available = len(wanted), len(self.steps)
        if count > available:
            raise ValueError(
                f"{count} intervals are more than the {available} steps at which this chain's "
                f"log-SNR falls; ask for fewer evaluations, {available} of one call a step at most"
            )
        place = torch.arange(count)
        index = _nearest(self.steps.double(), wanted.double())
        index = (index - place).cummax(0).values + place  # each after the one before it,
        return self.steps[index.minimum(place + available - count)]  # and room for the rest


class ContinuousAxis(TimeAxis):
    """All times from `first` to the floor, or to `end`, of a falling log-SNR."""

    def __init__(
        self, log_snr: Callable[[Tensor], Tensor], first: float, end: float, floor: float
    ) -> None:
        self._log_snr = log_snr
        self.first, self.last, self.floor = first, end, floor
        self.last = float(self.at_log_snr(torch.tensor(floor, dtype=torch.float64)))
        self.num_steps = self.last / first

    def log_snr(self, t: Tensor) -> Tensor:
        return self._log_snr(t)

    def at_log_snr(self, level: Tensor) -> Tensor:
        low = torch.zeros_like(level)
        high = torch.full_like(level, self.last)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            cleaner = self._log_snr(middle) > level
            low, high = torch.where(cleaner, middle, low), torch.where(cleaner, high, middle)
        return high

    def at_fraction(self, fraction: Tensor) -> Tensor:
        return self.last - fraction.double() * self.last  # 0 is not among them

    def before(self, t: Tensor) -> Tensor:
        return (t - self.first).clamp(min=0)

    def select(self, wanted: Tensor) -> Tensor:
        if (self._log_snr(wanted).diff() >= 0).any():
            raise ValueError(
                f"log-SNR does not fall between {len(wanted)} times so close to each other; "
                "ask for fewer evaluations"
            )
        return wanted


def first_at_most(log_snr: Tensor, floor: float) -> int:
    """Return the first index at which log_snr (n,) has fallen to the floor, or the last one."""
    below = (log_snr <= floor).nonzero()
    return int(below[0]) if len(below) else len(log_snr) - 1


def _nearest(ascending: Tensor, wanted: Tensor) -> Tensor:
    """Return the indices of the entries that are closest to the wanted ones."""
    after = torch.searchsorted(ascending, wanted).clamp(1, max(len(ascending) - 1, 1))
    after = after.clamp(max=len(ascending) - 1)
    before = (after - 1).clamp(min=0)
    return torch.where(wanted - ascending[before] <= ascending[after] - wanted, before, after)
