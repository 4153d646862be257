"""What a run decides by its machine and its data, and keeps when it is resumed: precision and batch
size where they are `auto`, names of labels, and the widths of what its network is told.
"""

import torch

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.run.config.build import build_conditions
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.directory.start import Start
from ddpm_lightning.run.fitting.memory import Budget, choose_batch, training_device

FULL, HALF = "32-true", "bf16-mixed"


def with_conditions(start: Start, data: ClipData) -> tuple[Start, dict[str, Condition]]:
    """Return the run with the names of its labels and a network as wide as its conditions, and
    these by name.

    Raises:
        UserError: where the data have no labels.
    """
    chosen = start.config.get("condition") or {}  # of a run of an earlier version: none
    if "label" in chosen and not chosen["label"]["names"]:
        with user_errors("condition=label"):
            start = start.with_values({"condition.label.names": data.label_names()})
    members = build_conditions(start.config.get("condition"))
    if not members:
        return start, members
    joint = Conditions(members)
    widths = {"vector_width": joint.vector_width, "token_width": joint.token_width}
    return start.with_values({f"network.{name}": w for name, w in widths.items()}), members


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
    with user_errors("condition"):  # a text encoder that is not there, say
        example = denoiser.conditions.null(1)
    budget = choose_batch(start.config, denoiser.network, example)
    return start.with_values({"data.batch_size": budget.batch_size}), budget


def choose_precision(trainer: Node) -> str:
    """Return bf16-mixed on a GPU that computes in bfloat16 natively, float32 elsewhere: runs that
    are compared should not differ by a stopwatch.
    """
    on_gpu = training_device(trainer).type == "cuda"
    return HALF if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else FULL
