"""What a run is, settled, and refused where it is wrong, before Lightning is imported, which takes
longest.
"""

import re
from functools import partial
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.data.places import local_folder
from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.config import Node, check, nodes, resolved
from ddpm_lightning.run.directory import Start, check_place, new_start, told_if_waiting
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.run.memory import Budget, choose_batch, training_dtype
from ddpm_lightning.run.precision import choose_precision
from ddpm_lightning.run.resume import resumed_start
from ddpm_lightning.run.signatures import is_slow
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point

PROBE_CLIPS, PROBE_POSITIONS = 8, 2**16  # at most, to find the faster precision with
_NAMED = ("noise", "objective", "times", "loss", "sampler")  # groups of parts that need no other
_STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true",
    "single_device",
)
_CPU_DEVICES = r"auto|[1-9]\d*", "auto or, on a CPU, how many processes: 1 or more"
_GPU_DEVICES = r"auto|-1|[1-9]\d*|\d+(,\d+)+|\[\d+(, \d+)*\]", "auto, a number or a list of numbers"
_OWN = {"callbacks", "logger", "plugins"}  # of the trainer, by run.train
_PROCESSES = {"StandardDiffusion": StandardProcess, "MedianDiffusion": MedianProcess}


def prepared(job: Job) -> tuple[Start, Budget]:
    """What is to be trained, with its precision and batch size settled, and the memory it takes.

    UserError for whatever is wrong with it and can be known without data and devices.
    """
    given = job.cfg.ckpt_path
    start = new_start(job) if given is None else resumed_start(str(given), job)
    with told_if_waiting(start):
        if start.is_new:
            check_place(start, is_named=job.cfg.run_dir is not None)
        if is_auto := start.config["data"].get("batch_size") == "auto":
            start = with_batch_size(start, 1)  # until the memory that is needed is known
        config = start.config
        check(config)
        check_trainer(config["trainer"])
        check_parts(config)
        process = process_of(config["model"])
        if process is not None:
            check_samplers(config, process)
        with user_errors("network"):
            network: nn.Module = instantiate(config["model"]["network"], _convert_="all")
        # refuses clips of a wrong form, too
        batch_size, budget = choose_batch(config, network, is_auto)
        if is_auto:
            start = with_batch_size(start, batch_size)
        check_model(config, network, process)
        settled = with_precision(start, network)
        if training_dtype(settled.config["trainer"]) != training_dtype(config["trainer"]):
            _, budget = choose_batch(settled.config, network, is_auto=False)  # it takes less
        return settled, budget


def check_trainer(trainer: Node) -> None:
    """UserError unless this machine has the accelerator, every rank all of the model, and training
    an end.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {"auto": True, "cpu": True, "gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not here.get(name := trainer.get("accelerator", "auto")):
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
    pattern, told = _CPU_DEVICES if on_cpu else _GPU_DEVICES
    if not re.fullmatch(pattern, devices := str(trainer.get("devices", "auto"))):
        raise UserError(f"trainer.devices={devices} is not possible; choose {told}")
    for key in _OWN & trainer.keys():
        raise UserError(
            f"trainer.{key} would be replaced by the run's own; callbacks and logger are groups of "
            "the configuration"
        )
    if trainer.get("max_steps", -1) == -1 and trainer.get("max_epochs") in (None, -1):
        raise UserError("the run has no end; set trainer.max_steps, which the learning rate needs")


def _is_replicated(strategy: Any) -> bool:
    """Whether each rank is a process of its own, and has the whole model: norms of gradients, to
    clip by, and averages of weights are found by each for itself.
    """
    if not isinstance(strategy, dict):
        return strategy in _STRATEGIES
    is_ddp = str(strategy.get("_target_")).endswith(".DDPStrategy")
    return is_ddp and strategy.get("start_method", "popen") == "popen"


def check_parts(config: Node) -> None:
    """UserError where one refuses its values."""
    loggers = config["logger"]
    for group, parts in {
        "callbacks": config["callbacks"],
        "logger": {} if "_target_" in loggers else loggers,
    }.items():
        for name, node in parts.items():
            if not isinstance(node, dict) or "_target_" not in node:
                raise UserError(
                    f"{group}.{name}={node} has no _target_; ~{group}.{name} leaves it out"
                )
    for name in _NAMED:
        with user_errors(name):
            instantiate(config[name], _convert_="all")
    for group in ("data", "callbacks"):
        for _, node in nodes(config[group], group):
            if not is_slow(node["_target_"]):
                with user_errors(group):
                    instantiate(node, _convert_="all")
    data = config["data"]
    with user_errors("data"):
        clip_format(**data)
        if "source" in data:
            instantiate(data["source"], _convert_="all")(data["path"])


def check_samplers(config: Node, process: GaussianProcess) -> None:
    """UserError where one of those that are to draw cannot walk along the chain."""
    with user_errors("model"):
        describe(process, config["model"]["data_std"])  # ValueError where nothing can be sampled
    loss = instantiate(config["model"]["loss"], _convert_="all")
    others = config["callbacks"].get("samples", {}).get("compare") or {}
    with user_errors("sampler"):
        for node in (config["sampler"], *others.values()):
            sampler: Sampler = instantiate(node, _convert_="all")
            rehearse(sampler, process, learned_variance=loss.num_outputs == 2)


def check_model(config: Node, network: nn.Module, process: GaussianProcess | None) -> None:
    """UserError where loss or optimizer do not go with the network."""
    model, form = config["model"], clip_format(**config["data"])
    with user_errors("optimizer"):
        instantiate(model["optimizer"], _convert_="all")(network.parameters())
    if process is None:
        return
    clip = torch.zeros(1, form.channels, form.num_frames, form.height, form.width)
    with user_errors("model"), torch.no_grad():
        objective, loss = (instantiate(model[k], _convert_="all") for k in ("objective", "loss"))
        loss.check(Denoiser(network, process, objective, model["data_std"]), clip)


def process_of(model: Node) -> GaussianProcess | None:
    """That of a node `model`; None where only its class, which needs Lightning, knows it."""
    with user_errors("model"):
        if "process" in model:
            process: GaussianProcess = instantiate(model["process"], _convert_="all")
            return process
        named = _PROCESSES.get(model["_target_"].rpartition(".")[2])
        return named(instantiate(model["schedule"], _convert_="all")) if named else None


class Blank(NamedTuple):
    """An estimator that sees nothing, and has a variance where a network would have learned one."""

    process: GaussianProcess
    learned_variance: bool

    def estimate_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        return Estimate(torch.zeros_like(x), torch.zeros_like(x) if self.learned_variance else None)


def rehearse(sampler: Sampler, process: GaussianProcess, learned_variance: bool) -> None:
    """ValueError now, not after hours, where the sampler cannot walk: its first step, on zeros."""
    times = sampler.times(process)
    draw = partial(torch.zeros, 1, 1)
    start = sampler.start(Point.at(process, times[0]), process, draw)
    sampler.walk(Blank(process, learned_variance), start, times[:2], draw)


def with_batch_size(start: Start, batch_size: int) -> Start:
    """Return the same with another number of clips, which a resumed run will find."""
    start.cfg.data.batch_size = batch_size
    return start._replace(config=resolved(start.cfg))


def with_precision(start: Start, network: nn.Module) -> Start:
    """The same with what precision=auto means here, which a resumed run will find in its place."""
    trainer, data = start.config["trainer"], start.config["data"]
    if trainer.get("precision") != "auto":
        return start
    form = clip_format(**data)
    positions = form.num_frames * form.height * form.width
    num_clips = max(1, min(data["batch_size"], PROBE_CLIPS, PROBE_POSITIONS // positions))
    clips = torch.zeros(num_clips, form.channels, form.num_frames, form.height, form.width)
    chosen = choose_precision(
        accelerator=str(trainer.get("accelerator", "auto")),
        network=network,
        clips=clips,
        answers=local_folder(data["cache_path"]) / "precision.json",
    )
    start.cfg.trainer.precision = chosen
    return start._replace(config=resolved(start.cfg))
