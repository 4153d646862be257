"""Where the main threads of the ranks are in their training steps, and whether they hang there.

Ranks wait for each other within a step, and for as long as they like: one that is outside may load
data, validate or save. Only where all of them have been within a step for longer than any takes
does nobody get on. Then those that are behind hold up the others.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from traceback import walk_stack
from typing import NamedTuple

FORWARD, BACKWARD, UPDATE = "forward pass", "backward pass", "update"  # the parts, in order
_PARTS = (FORWARD, BACKWARD, UPDATE)
_FREE_STEPS = 3  # the first of a process, which compile; the next one shows how long they take
_RECENT = 100  # batches; who has waited long for another rank should forget it
_TIMES_LONGEST = 10
_MAX_FRAMES, _MAX_RANKS, _MAX_CHARACTERS = 3, 4, 100  # in a message
# Where a thread stands that waits for a collective operation, or for its own backward pass.
_WAITING = ("torch/autograd/graph.py", "torch/distributed/", "nn/parallel/distributed.py")


class Position(NamedTuple):
    """Of a rank within a training step.

    batch: the number of training batches that it has begun.   step: of the optimizer.
    part: one of _PARTS.   seconds: since the step began.   longest: that it took of late, seconds.
    frames: of its main thread, the innermost first.
    """

    batch: int
    step: int
    part: str
    seconds: float
    longest: float
    frames: list[str]

    def __str__(self) -> str:
        frames = " < ".join(self.frames)
        return f"in the {self.part} of step {self.step} for {self.seconds:.0f} s, at {frames}"

    @property
    def place(self) -> tuple[int, int]:
        """The smaller one is behind."""
        return self.batch, _PARTS.index(self.part)

    @property
    def waits(self) -> bool:
        return any(frame.startswith(_WAITING) for frame in self.frames[:1])


class Steps:
    """Those of this process, marked by its main thread; another one may ask where it is.

    Args:
        seconds: that a step may take, at least, before it counts as a hang.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.part = FORWARD
        self._batch = self._step = 0
        self._free_until: int | None = None
        self._begun_at: float | None = None
        self._forgiven_at = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def begin(self, step: int) -> None:
        """A training batch, whose forward pass comes first; `part` tells of the others."""
        if self._free_until is None:
            self._free_until = step + _FREE_STEPS
        self._batch, self._step, self.part = self._batch + 1, step, FORWARD
        if step >= self._free_until:
            self._begun_at = time.monotonic()

    def end(self) -> None:
        """Of the step, well or not; what follows may take its time."""
        if self._begun_at is not None:
            self._recent.append(time.monotonic() - self._begun_at)
            self._begun_at = None

    def forgive(self) -> None:
        """The process was stopped: that time does not count."""
        self._forgiven_at = time.monotonic()

    def position(self) -> Position | None:
        """None outside of a step, and until it is known how long one takes."""
        begun_at, recent = self._begun_at, list(self._recent)
        if begun_at is None or not recent:
            return None
        seconds = time.monotonic() - max(begun_at, self._forgiven_at)
        return Position(self._batch, self._step, self.part, seconds, max(recent), _main_frames())


def hang(positions: Mapping[str, Position | None], seconds: float) -> str | None:
    """The cause, if no rank gets on.

    Args:
        positions: of all ranks, by what each is called.
        seconds: that a step may take, and ten times the longest one of late as well.
    """
    found = {rank: position for rank, position in positions.items() if position is not None}
    if len(found) < len(positions):
        return None
    # The shortest of their longest steps: in the others, ranks waited for one that was outside.
    longest = min(position.longest for position in found.values())
    shortest = min(position.seconds for position in found.values())
    if shortest <= max(seconds, _TIMES_LONGEST * longest):
        return None
    last = min(position.place for position in found.values())
    behind = {rank: position for rank, position in found.items() if position.place == last}
    busy = {rank: position for rank, position in behind.items() if not position.waits}
    blamed = busy or behind
    is_known = len(blamed) < len(found)
    says = "hangs" if is_known else "stands"
    lines = [f"{rank} {says} {position}" for rank, position in islice(blamed.items(), _MAX_RANKS)]
    if len(blamed) > _MAX_RANKS:
        lines.append(f"and {len(blamed) - _MAX_RANKS} more")
    if not is_known:
        lines.insert(0, "no rank gets on, and which of them hangs is not known")
    return "; ".join(lines) + " (callbacks.hang.seconds)"


def _main_frames() -> list[str]:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    found = []
    for f, line in islice(walk_stack(frame) if frame else (), _MAX_FRAMES):
        file = "/".join(Path(f.f_code.co_filename).parts[-3:])
        found.append(f"{file}:{line} in {f.f_code.co_name}"[:_MAX_CHARACTERS])
    return found
