"""What a run decides by its machine and its data, and keeps when it is resumed: precision and batch
size where they are `auto`, names of labels, and the widths of what its network is told.
"""

import torch
from hydra.utils import instantiate

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.run.build import build_data
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.directory import Start
from ddpm_lightning.run.errors import user_errors
from ddpm_lightning.run.memory import Budget, choose_batch, training_device

FULL, HALF = "32-true", "bf16-mixed"


def with_conditions(start: Start) -> Start:
    """Return the run with the names of its labels, and a network as wide as its conditions.

    Raises:
        UserError: where the data have no labels.
    """
    chosen = start.config.get("condition") or {}  # of a run of an earlier version: none
    if not chosen:
        return start
    label = chosen.get("label")
    if label is not None and not label["names"]:
        data = build_data({**start.config["data"], "batch_size": 1})
        with user_errors("condition=label"):
            start = start.with_values({"condition.label.names": data.label_names()})
    with user_errors("condition"):
        conditions = Conditions(instantiate(start.config["condition"], _convert_="all"))
    widths = {"vector_width": conditions.vector_width, "token_width": conditions.token_width}
    return start.with_values({f"network.{name}": width for name, width in widths.items()})


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
    with user_errors("condition"):  # a text encoder that is not there, say
        example = denoiser.conditions.null(1)
    batch_size, budget = choose_batch(start.config, denoiser.network, is_auto, example)
    return start.with_values({"data.batch_size": batch_size}) if is_auto else start, budget


def choose_precision(trainer: Node) -> str:
    """Return bf16-mixed on a GPU that computes in bfloat16 natively, float32 elsewhere: runs that
    are compared should not differ by a stopwatch.
    """
    on_gpu = training_device(trainer).type == "cuda"
    return HALF if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else FULL
