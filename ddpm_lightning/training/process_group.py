"""The ranks of a run wait for each other: for a minute within a step, with patience elsewhere.

Within a training step all ranks do the same, so one that keeps the others waiting hangs. Between
steps a rank may fetch data, draw samples, validate or save, and the others wait for it at a fence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import DistError

try:
    from torch.distributed import set_timeout
except ImportError:  # before torch 2.15
    from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout

PATIENCE = timedelta(hours=6)


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


def limit(patience: timedelta) -> None:
    """Set how long this rank waits for the others in each collective that begins from now on."""
    set_timeout(patience)


def fence() -> None:
    """Wait until all ranks are here, and be patient from then on; nothing waits for a GPU."""
    if is_distributed():
        limit(PATIENCE)
        distributed.barrier()


def any_rank(*flags: bool) -> list[bool]:
    """Return, for each flag, whether any rank has it; nothing waits for a GPU."""
    if not is_distributed():
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(raised, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Turn what collectives raise where another rank has ended, or does not come in time, into
    ConnectionAbortedError: gloo's are plain RuntimeErrors.
    """
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, DistError) or "gloo" in str(e):
            cause = str(e).splitlines()[0]
            raise ConnectionAbortedError(f"another rank has ended or hangs ({cause})") from e
        raise
