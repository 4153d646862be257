"""What a run is, by its configuration: new, or resumed with its own."""

import re
from typing import Any

import torch

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.run.config.check import Node, check_without_lightning
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.directory.resume import resumed_start
from ddpm_lightning.run.directory.start import Start, new_start

_STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true",
    "single_device",
)
_CPU_DEVICES = r"auto|[1-9]\d*", "auto or, on a CPU, how many processes: 1 or more"
_GPU_DEVICES = r"auto|-1|[1-9]\d*|\d+(,\d+)+|\[\d+(, \d+)*\]", "auto, a number or a list of numbers"
_OWN = {"callbacks", "logger", "plugins"}  # of the trainer, by fitting.fit


def composed_start(job: Job) -> Start:
    """Return the run that a job asks for."""
    checkpoint = job.cfg.ckpt_path
    return new_start(job) if checkpoint is None else resumed_start(str(checkpoint), job)


def check_composed(config: Node) -> None:
    """Raise UserError for what can be known before anything is built, or Lightning imported."""
    check_without_lightning(config)
    with user_errors("data"):
        clip_format(**config["data"])
    check_trainer(config["trainer"])
    for group in ("callbacks", "logger"):
        members = {} if "_target_" in config[group] else config[group]
        for name, node in members.items():
            if not isinstance(node, dict) or "_target_" not in node:
                raise UserError(
                    f"{group}.{name}={node} has no _target_; ~{group}.{name} leaves it out"
                )


def check_trainer(trainer: Node) -> None:
    """Raise UserError unless this machine has the accelerator, every rank holds all of the model,
    and training has an end.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {"auto": True, "cpu": True, "gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not here.get(name := str(trainer.get("accelerator", "auto"))):
        raise UserError(
            f"trainer.accelerator={name} is not available here; choose "
            f"{' or '.join(n for n in here if here[n])} (auto takes what this machine has)"
        )
    if not _is_replicated(strategy := trainer.get("strategy", "auto")):
        raise UserError(
            f"trainer.strategy={strategy} is not possible: every rank needs all weights and "
            f"gradients, and a process with train.py's command; choose {', '.join(_STRATEGIES)}"
        )
    on_cpu = name == "cpu" or not (cuda or mps)
    pattern, allowed = _CPU_DEVICES if on_cpu else _GPU_DEVICES
    if not re.fullmatch(pattern, devices := str(trainer.get("devices", "auto"))):
        raise UserError(f"trainer.devices={devices} is not possible; choose {allowed}")
    for key in _OWN & trainer.keys():
        raise UserError(
            f"trainer.{key} would be replaced by the run's own; callbacks and logger are groups of "
            "the configuration"
        )
    if trainer.get("max_steps", -1) == -1 and trainer.get("max_epochs") in (None, -1):
        raise UserError("the run has no end; set trainer.max_steps, which the learning rate needs")


def _is_replicated(strategy: Any) -> bool:
    """Return whether each rank is a process of its own and has the whole model: gradient norms, to
    clip by, and averages of weights are computed by each rank for itself.
    """
    if not isinstance(strategy, dict):
        return strategy in _STRATEGIES
    is_ddp = str(strategy.get("_target_")).endswith(".DDPStrategy")
    return is_ddp and strategy.get("start_method", "popen") == "popen"
