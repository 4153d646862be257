"""What `auto` means on this machine: precision and batch size, which a resumed run keeps."""

import torch

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.directory import Start
from ddpm_lightning.run.memory import Budget, choose_batch, training_device

FULL, HALF = "32-true", "bf16-mixed"


def settled(start: Start, denoiser: Denoiser) -> tuple[Start, Budget]:
    """Return the run with precision and batch size as values, and the memory that it takes.

    Only the network computes in the precision: schedules and times stay in float64, clips and
    losses in float32.

    Raises:
        UserError: where the device cannot hold the batch, with what it can.
    """
    if start.config["trainer"].get("precision") == "auto":
        precision = choose_precision(start.config["trainer"])
        start = start.with_values({"trainer.precision": precision})
    is_auto = start.config["data"].get("batch_size") == "auto"
    batch_size, budget = choose_batch(start.config, denoiser.network, is_auto)
    return start.with_values({"data.batch_size": batch_size}) if is_auto else start, budget


def choose_precision(trainer: Node) -> str:
    """Return bf16-mixed on a GPU that computes in bfloat16 natively, float32 elsewhere: runs that
    are compared should not differ by a stopwatch.
    """
    on_gpu = training_device(trainer).type == "cuda"
    return HALF if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else FULL
