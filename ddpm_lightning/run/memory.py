"""How much memory training needs, from its tensors' sizes, before any of it is taken.

Activations are counted by a pass through the network on torch's meta device, which computes shapes
alone.
"""

import copy
import os
from pathlib import Path
from typing import NamedTuple

import torch

from ddpm_lightning.run.errors import UserError
from ddpm_lightning.training.module import DiffusionModule

_CGROUP, _MEMINFO = Path("/sys/fs/cgroup/memory.max"), Path("/proc/meminfo")


class MemoryPlan(NamedTuple):
    """Bytes: weights and their gradients, the optimizer's moments, averages, and what a batch's
    pass forward keeps for the one back."""

    weights: int
    optimizer: int
    averages: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self)


def plan(module: DiffusionModule, shape: tuple[int, ...], num_averages: int) -> MemoryPlan:
    """For batches of this shape (B, C, F, H, W) on one device, with float32 activations."""
    network = module.denoiser.network
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # else its place could be taken by another
        return tensor

    alive: list[torch.Tensor] = []
    on_meta = copy.deepcopy(network).to("meta")
    own = {p.untyped_storage()._cdata for p in on_meta.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        on_meta(torch.empty(shape, device="meta"), torch.empty(shape[:1], device="meta"))
    activations = sum(num_bytes for key, num_bytes in kept.items() if key not in own)
    return MemoryPlan(2 * size, 2 * size, num_averages * size, activations)


def check_memory(found: MemoryPlan, accelerator: str) -> None:
    """UserError, with the parts, if the device has less than the plan."""
    available = available_bytes(accelerator)
    if found.total <= available:
        return
    parts = ", ".join(f"{name} {_size(value)}" for name, value in found._asdict().items())
    raise UserError(
        f"training needs about {_size(found.total)} of memory, {_size(available)} are free "
        f"({parts}); lower data.batch_size, data.size or network.base_width"
    )


def available_bytes(accelerator: str) -> int:
    """Free on the first device that the accelerator means."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most
    if _MEMINFO.exists():
        rows = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    return free if limit == "max" else min(free, int(limit))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.2f} GiB"
