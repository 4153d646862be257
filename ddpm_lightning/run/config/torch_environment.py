"""What torch reads of the environment as it is imported, and the cores that it may use."""

import os
from pathlib import Path

_SPINS = "2000"  # some microseconds; by trial
CACHE = Path("data/cache/compiler")  # from which a second start of the same network is warm


def prepare_torch() -> None:
    """Have threads that wait for each other sleep soon, and compiled code kept below data/.

    To be called before torch is imported, which chooses its own place for compiled code then. What
    the user's environment says holds.

    GNU's OpenMP has them wait awake for milliseconds. Where another process wants a core too, the
    one that all wait for does not get it: on two cores a training step took 15 times as long
    beside a busy process, and 4 times so; alone it takes as long as before.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE.absolute()))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def num_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
