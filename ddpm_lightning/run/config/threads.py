"""How the threads of a CPU's products share the cores with other processes."""

import os

_SPINS = "2000"  # some microseconds; by trial


def yield_cores() -> None:
    """Has threads that wait for each other sleep soon. To be called before torch is imported.

    GNU's OpenMP has them wait awake for milliseconds. Where another process wants a core too, the
    one that all wait for does not get it: on two cores a training step took 15 times as long
    beside a busy process, and 4 times so; alone it takes as long as before. What the user's
    environment says of it holds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def num_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
