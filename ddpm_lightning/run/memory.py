"""data.batch_size=auto, and a refusal before step 0 of what the device cannot hold."""

import logging
import os

import torch

from ddpm_lightning.networks.memory import GIB, LARGEST_BATCH, RESERVE, Proposal, propose
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.training.datamodule import StoreDataModule
from ddpm_lightning.training.module import DiffusionModule

log = logging.getLogger(__name__)


def take_auto(config: Node) -> bool:
    """Whether data.batch_size is auto; if so it becomes 1 until fit_memory has chosen."""
    data = config["data"]
    is_auto = isinstance(data, dict) and data.get("batch_size") == "auto"
    if is_auto:
        data["batch_size"] = 1
    return is_auto


def available_bytes(device: str) -> int:
    """Memory to train in: what is free on the GPU, or all that the machine has."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_type(config: Node) -> str:
    """cuda or cpu: where the trainer will put the network."""
    named = str(config["trainer"].get("accelerator", "auto"))
    return "cuda" if named in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"


def fit_memory(config: Node, module: DiffusionModule, data: StoreDataModule, is_auto: bool) -> None:
    """Sets the batch size that was asked to be chosen, the largest power of 2 that fits; UserError
    where a given one does not fit, with what would.
    """
    device = device_type(config)
    form = data.format
    wanted = LARGEST_BATCH if is_auto else data.batch_size
    shape = (wanted, form.channels, form.num_frames, form.height, form.width)
    precision = str(config["trainer"].get("precision", "32"))
    dtype = torch.float32 if precision.startswith(("32", "64")) else torch.bfloat16
    available = available_bytes(device)
    with user_errors("model"):
        found = propose(
            module.denoiser.network,
            shape,
            device,
            available,
            dtype,
            average="ema" in config["callbacks"],
        )
    if is_auto and not found.checkpointing:
        data.batch_size = config["data"]["batch_size"] = found.batch_size
        log.info("data.batch_size=%d, planned memory %s", found.batch_size, found.plan)
    elif found.checkpointing or found.batch_size < wanted:
        raise UserError(
            f"data.batch_size={wanted} needs more than {RESERVE:.0%} of the "
            f"{available / GIB:.1f} GiB there are; {remedy(found, config)}"
        )


def remedy(found: Proposal, config: Node) -> str:
    """The words that make it fit."""
    words = [f"data.batch_size={found.batch_size}"]
    before = config["trainer"].get("accumulate_grad_batches") or 1
    words.append(f"trainer.accumulate_grad_batches={found.accumulate * before}")
    if found.checkpointing:
        levels = len(config["model"]["network"].get("width_multipliers", [0]))
        words.append(f"network.checkpointing=[{','.join(['true'] * levels)}]")
    return f"add {' '.join(words)}"
