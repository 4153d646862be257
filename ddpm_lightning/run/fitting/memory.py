"""data.batch_size=auto, and one line, with what works, for what the device cannot hold."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.networks.memory import (
    GIB,
    RESERVE,
    MemoryPlan,
    fastest_batch,
    largest_batch,
    measure,
)
from ddpm_lightning.run.config.check import Node, nodes
from ddpm_lightning.run.config.errors import UserError, user_errors

LARGEST_BATCH = 64  # that auto chooses
_CGROUP, _MEMINFO = Path("/sys/fs/cgroup/memory.max"), Path("/proc/meminfo")


class Budget(NamedTuple):
    """The plan of a training step with batch_size clips, and the bytes available."""

    plan: MemoryPlan
    batch_size: int
    available: int

    def __str__(self) -> str:
        planned = self.plan.total(self.batch_size) / GIB
        return f"{planned:.2f} GiB planned, {self.available / GIB:.1f} GiB free"


def choose_batch(
    config: Node, network: nn.Module, conditions: Mapping[str, Tensor] | None = None
) -> Budget:
    """Return the batch size and the memory that training with it takes.

    Args:
        config: a run's, resolved; data.batch_size=auto wants the largest power of 2 that fits and
            is faster, in clips a second, than the one before it.
        conditions: of the network for one clip, an example.

    Raises:
        UserError: where the device cannot hold the batch, with what it can.
    """
    trainer, form = config["trainer"], clip_format(**config["data"])
    device = training_device(trainer)
    available = available_bytes(device)
    shape = form.channels, form.num_frames, form.height, form.width
    trial = network, shape, device, training_dtype(trainer)
    one = {name: value[0] for name, value in (conditions or {}).items()}
    averages = len(list(nodes(config["callbacks"].get("ema", {}).get("averages"), "")))
    with user_errors("model"):
        plan = measure(*trial, averages, available, one)
    is_auto = config["data"]["batch_size"] == "auto"
    wanted = LARGEST_BATCH if is_auto else config["data"]["batch_size"]
    batch_size = largest_batch(plan, available, wanted)
    limit = f"needs more than {RESERVE:.0%} of the {available / GIB:.1f} GiB that are free"
    if not batch_size:
        clip = f"{form.num_frames}x{form.height}x{form.width}"
        raise UserError(f"a single clip of {clip} {limit}; {remedy(config, 0)}")
    if is_auto:
        batch_size = fastest_batch(*trial, batch_size, one)
    elif batch_size < wanted:
        raise UserError(f"data.batch_size={wanted} {limit}; {remedy(config, batch_size)}")
    return Budget(plan, batch_size, available)


def remedy(config: Node, batch_size: int) -> str:
    """Return what to change in a command whose batch does not fit.

    Args:
        batch_size: that fits; 0: not even one clip does.
    """
    recomputed = config["model"]["denoiser"]["network"].get("checkpointing", True)
    is_left = not (all(recomputed) if isinstance(recomputed, list) else recomputed)
    if not batch_size:
        recomputation = "network.checkpointing=true, " if is_left else ""
        return f"choose {recomputation}a smaller data.size or a smaller network="
    parts = -(-config["data"]["batch_size"] // batch_size)
    parts *= config["trainer"].get("accumulate_grad_batches") or 1
    recomputation = ", or try network.checkpointing=true" if is_left else ""
    same = f"data.batch_size={batch_size} trainer.accumulate_grad_batches={parts}"
    return f"add {same}{recomputation}"


def first_step_error(config: Node) -> UserError:
    """Return what ends a run that has no memory for its first step, whatever was measured."""
    batch_size = config["data"]["batch_size"]
    words = f"out of memory before a second step was over with data.batch_size={batch_size}"
    return UserError(f"{words}; {remedy(config, batch_size // 2)}")


def training_device(trainer: Node) -> torch.device:
    """Return the device that Lightning gives to this process."""
    is_wanted = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    if not (is_wanted and torch.cuda.is_available()):
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    return torch.device("cuda", gpu_index(trainer.get("devices", "auto"), local_rank))


def gpu_index(devices: Any, local_rank: int) -> int:
    """Return the number of the GPU of a rank: of a list "1,3" or [1, 3] that at its place."""
    if isinstance(devices, str) and "," in devices:
        devices = [int(number) for number in devices.split(",")]
    return int(devices[local_rank]) if isinstance(devices, list) else local_rank


def training_dtype(trainer: Node) -> torch.dtype:
    """Return what the network computes in."""
    precision = str(trainer.get("precision") or "32")
    return torch.float32 if precision.startswith(("32", "64")) else torch.bfloat16


def available_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a GPU, or on this machine within the limits set to us."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # at most
    if _MEMINFO.exists():
        rows = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    return free if limit == "max" else min(free, int(limit))
