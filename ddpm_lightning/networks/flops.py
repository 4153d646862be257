"""Floating-point operations of a network, counted from its real graph, and what devices can do."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Dense bfloat16 operations a second, from the vendors' data sheets.
PEAK = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def forward_flops(
    network: nn.Module, shape: Sequence[int], conditions: Mapping[str, Sequence[int]] | None = None
) -> int:
    """Return the operations of one call in products and convolutions; nothing is computed.

    Args:
        shape: (B, C, F, H, W) of the clips.
        conditions: shape for one clip of each condition of the network, by its name.
    """
    blank = copy.deepcopy(network).to("meta")
    vars(blank).pop("forward", None)  # of a compiled network, whose weights it would compute with
    x = torch.empty(tuple(shape), device="meta")
    inputs = {
        name: torch.empty(shape[0], *each, device="meta")
        for name, each in (conditions or {}).items()
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        blank(x, torch.empty(shape[0], device="meta"), **inputs)
    return int(counter.get_total_flops())


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that the device's data sheet promises in bfloat16; None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK.items() if known in name), None)
