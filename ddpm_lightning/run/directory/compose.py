"""What a run is, by its configuration: new, or resumed with its own."""

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.run.config.check import Node, check_without_lightning
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.directory.resume import resumed_start
from ddpm_lightning.run.directory.start import Start, new_start

_STRATEGIES = ("auto", "ddp", "single_device")
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
    """Raise UserError unless each rank holds all of the model, whose gradients it clips and whose
    weights it averages for itself, and training has an end.
    """
    if (strategy := trainer.get("strategy", "auto")) not in _STRATEGIES:
        raise UserError(
            f"trainer.strategy={strategy} is not possible: every rank needs all weights and "
            f"gradients, and a process with train.py's command; choose {', '.join(_STRATEGIES)}"
        )
    for key in _OWN & trainer.keys():
        raise UserError(
            f"trainer.{key} would be replaced by the run's own; callbacks and logger are groups of "
            "the configuration"
        )
    if trainer.get("max_steps", -1) == -1 and trainer.get("max_epochs") in (None, -1):
        raise UserError("the run has no end; set trainer.max_steps, which the learning rate needs")
