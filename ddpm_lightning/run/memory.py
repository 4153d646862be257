"""data.batch_size=auto, and a refusal before step 0 of what the device cannot hold."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.networks.memory import (
    GIB,
    LARGEST_BATCH,
    RESERVE,
    MemoryPlan,
    Proposal,
    propose,
)
from ddpm_lightning.run.config import Node, resolved
from ddpm_lightning.run.directory import Start
from ddpm_lightning.run.errors import UserError, user_errors

_CGROUP, _MEMINFO = Path("/sys/fs/cgroup/memory.max"), Path("/proc/meminfo")


class Budget(NamedTuple):
    """Bytes of a device that a training step is planned to take, and that are free."""

    plan: MemoryPlan
    available: int

    def __str__(self) -> str:
        return f"{self.plan} planned, {self.available / GIB:.1f} GiB free"


def with_batch_size(start: Start, batch_size: int) -> Start:
    """The same with another number of clips, which a resumed run will find."""
    start.cfg.data.batch_size = batch_size
    return start._replace(config=resolved(start.cfg))


def fit_memory(start: Start, network: nn.Module, is_auto: bool) -> tuple[Start, Budget]:
    """With the batch size chosen, if it is to be: the largest power of 2 that fits. UserError where
    a given one does not fit, with what would.
    """
    config = start.config
    accelerator = str(config["trainer"].get("accelerator", "auto"))
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    form = clip_format(**config["data"])
    wanted = LARGEST_BATCH if is_auto else config["data"]["batch_size"]
    shape = (wanted, form.channels, form.num_frames, form.height, form.width)
    precision = str(config["trainer"].get("precision", "32"))
    # What auto means on a CPU is measured, which must fit too.
    whole = precision.startswith(("32", "64")) or (precision == "auto" and not on_gpu)
    dtype = torch.float32 if whole else torch.bfloat16
    available = available_bytes(on_gpu)
    with user_errors("model"):
        found = propose(
            network,
            shape,
            "cuda" if on_gpu else "cpu",
            available,
            dtype,
            averages=len(config["callbacks"].get("ema", {}).get("averages", {})),
        )
    if is_auto and not found.checkpointing:
        return with_batch_size(start, found.batch_size), Budget(found.plan, available)
    if found.checkpointing or found.batch_size < wanted:
        raise UserError(
            f"data.batch_size={wanted} needs more than {RESERVE:.0%} of the "
            f"{available / GIB:.1f} GiB that are free; {remedy(found, config)}"
        )
    return start, Budget(found.plan, available)


def available_bytes(on_gpu: bool) -> int:
    """Free on the first GPU, or on this machine, within the bounds that are set to us."""
    if on_gpu:
        return int(torch.cuda.mem_get_info()[0])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most
    if _MEMINFO.exists():
        rows = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    return free if limit == "max" else min(free, int(limit))


def remedy(found: Proposal, config: Node) -> str:
    """The words that make it fit."""
    words = [f"data.batch_size={found.batch_size}"]
    before = config["trainer"].get("accumulate_grad_batches") or 1
    words.append(f"trainer.accumulate_grad_batches={found.accumulate * before}")
    if found.checkpointing:
        levels = len(config["model"]["network"].get("width_multipliers", [0]))
        words.append(f"network.checkpointing=[{','.join(['true'] * levels)}]")
    return f"add {' '.join(words)}"
