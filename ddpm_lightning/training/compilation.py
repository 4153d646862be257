"""torch.compile where it works, and eager execution, said in one line, where it does not."""

import logging
from collections.abc import Iterable

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_in_place(networks: Iterable[nn.Module], device: torch.device) -> bool:
    """Compiles networks at their next call; whether this machine can.

    Names in checkpoints stay as they are. What a compiler lacks (a C++ or Triton toolchain) shows
    at its first use only, so it is tried on one addition.
    """
    try:
        torch.compile(_trial)(torch.ones(2, device=device))
    except Exception as e:  # what dynamo and inductor raise has many types
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        log.warning("torch.compile does not work here (%s); going on without", reason)
        return False
    for network in networks:
        network.compile()
    return True


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x + 1
