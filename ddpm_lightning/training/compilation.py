"""torch.compile where it works and pays; eager execution, said in one line, where it does not work.

Only training steps are compiled: their batches have one size. Without gradients a network runs
eagerly, so that validation and samples, of any size, with any weights, compile nothing.
"""

import logging
from typing import Any, Literal

import torch
from torch import nn

# Compiling took 60 to 95 s on an H200, and a step then 20 to 48 ms less: 2,000 to 3,000 steps; that
# was before eager steps launched a third of what they did.
PAYS_FROM = 10_000  # steps

Choice = bool | Literal["auto", "graphs"]

log = logging.getLogger(__name__)


def pays(choice: Choice, device: torch.device, num_steps: float) -> bool:
    """Return whether to compile for so many steps: auto on CUDA alone, from PAYS_FROM on."""
    return bool(choice) if choice != "auto" else device.type == "cuda" and num_steps >= PAYS_FROM


def mode_of(choice: Choice) -> str | None:
    """Return the mode of torch.compile: reduce-overhead replays a step as CUDA graphs."""
    return "reduce-overhead" if choice == "graphs" else None


def check_graphs(choice: Choice, accumulate: int) -> None:
    """Raise ValueError where CUDA graphs would lose gradients.

    A replayed graph overwrites the gradients that it has returned before, so those of several
    batches are not their sum (torch 2.11 to 2.15).
    """
    if choice == "graphs" and accumulate > 1:
        raise ValueError(
            f"compile=graphs cannot sum gradients over trainer.accumulate_grad_batches={accumulate}"
            " batches; choose model.compile=true, or a larger batch without accumulation"
        )


def compile_in_place(network: nn.Module, device: torch.device, **options: Any) -> bool:
    """Compile a network's calls with gradients, at the first of them; return whether that works.

    Names in checkpoints stay as they are. What a compiler lacks (a C++ or Triton toolchain) shows
    at its first use only, so it is tried on one addition.

    Args:
        options: of torch.compile.
    """
    try:
        torch.compile(_trial, **options)(torch.ones(2, device=device))
    except Exception as e:  # what dynamo and inductor raise has many types
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        log.warning("torch.compile does not work here (%s); going on without", reason)
        return False
    eager, compiled = network.forward, torch.compile(network.forward, **options)

    def forward(*arguments: Any, **keywords: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else eager)(*arguments, **keywords)

    network.forward = forward
    return True


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x + 1
