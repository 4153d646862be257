"""The ranks of a run: one process group, one configuration, one run directory.

They are started by torchrun, by srun or by an agent (fitting.agent). They join their process group
and show that they have the same settings before anything is made; rank 0 makes the run and sends it
to the others.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from torch import distributed

from ddpm_lightning.run.config.check import Node, first_difference
from ddpm_lightning.run.config.errors import RUN_FILE, RunFailed, Stopped, UserError
from ddpm_lightning.run.config.job import Job, JobError
from ddpm_lightning.run.directory.slurm import continued
from ddpm_lightning.run.directory.start import Start
from ddpm_lightning.run.fitting.memory import training_device
from ddpm_lightning.training.process_group import fence, lost_ranks

if TYPE_CHECKING:  # Lightning takes seconds to import, which a lone process or an agent need not
    from lightning.fabric.plugins import ClusterEnvironment

_START_SECONDS = 300  # from the first rank's start to the last one's
_RANK = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # where Lightning finds it, in this order
_STARTED_BY = {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"}
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class Ranks:
    """This process's place among the ranks of a run.

    Args:
        job: of this process.
        world_size: how many ranks have been started.
        start: what rank 0 has made of its job; None on rank 0 itself.
    """

    def __init__(self, job: Job, world_size: int = 1, start: Start | None = None) -> None:
        self.job, self.world_size, self.start = job, world_size, start
        self.has_sent = world_size == 1 or start is not None

    @property
    def is_first(self) -> bool:
        return self.start is None

    def send(self, message: Start | int) -> None:
        """Send to all others, as rank 0, the run that it has made, or the exit code of its end."""
        if not self.has_sent:
            self.has_sent = True
            if isinstance(message, Start):  # a fork has its checkpoint in its own directory
                message = message._replace(checkpoint=message.own_checkpoint, is_new=False)
            _broadcast(message)
            if RUN_FILE in os.environ and isinstance(message, Start):
                with suppress(OSError):  # of a full disk
                    Path(os.environ[RUN_FILE]).write_text(str(message.directory))

    def num_to_start(self, trainer: Node) -> int:
        """Return how many ranks an agent has to start for this process; 0 for none.

        Raises:
            UserError: where others have been started than the trainer wants, or ranks on other
                nodes are missing.
        """
        devices, nodes = num_devices(trainer), trainer.get("num_nodes", 1)
        if self.world_size == 1 and nodes == 1:
            return devices if devices > 1 else 0
        if self.world_size == 1:
            raise UserError(
                f"trainer.num_nodes={nodes}: start the ranks on each node with torchrun or srun"
            )
        if self.world_size != devices * nodes:
            raise UserError(
                f"{self.world_size} ranks were started, but trainer.devices="
                f"{trainer.get('devices')} trainer.num_nodes={nodes} makes {devices * nodes}"
            )
        return 0


def num_devices(trainer: Node) -> int:
    """Return how many devices of this machine a trainer takes; 1 for what will be refused."""
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list):
        return len(devices)
    if training_device(trainer).type == "cuda" and str(devices) in ("auto", "-1"):
        return torch.cuda.device_count()
    if "," in (text := str(devices)):
        return text.count(",") + 1
    return int(text) if text.isdigit() else 1


@contextmanager
def rendezvous(job: Job) -> Iterator[Ranks]:
    """Join the other ranks, if this process has been started as one of several.

    Raises:
        UserError: where their settings differ.   RunFailed: where they are not there.
    """
    environment = _environment()
    if environment is None:
        yield Ranks(continued(job))
        return
    _end_with_agent()
    _join(environment)
    is_first, world_size = environment.global_rank() == 0, environment.world_size()
    _compare(job, is_first)
    ranks = Ranks(job, world_size, None if is_first else _received())
    try:
        if is_first:
            ranks.job = continued(job)
        yield ranks
    except BaseException as e:
        with suppress(RunFailed):  # the others may have ended before
            number = e.signal_number if isinstance(e, Stopped) else 0
            ranks.send(128 + number if number else 2 if isinstance(e, UserError) else 1)
        raise
    distributed.destroy_process_group()


def _environment() -> "ClusterEnvironment | None":
    """Return what torchrun, srun or an agent says of this process; None if it is on its own."""
    if _STARTED_BY & os.environ.keys():
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                try:
                    environment = kind()
                except RuntimeError as e:
                    raise UserError(str(e)) from e
                return environment if environment.world_size() > 1 else None
    rank = next((int(os.environ[name]) for name in _RANK if name in os.environ), 0)
    if rank:
        raise UserError(
            f"this process is rank {rank} by its environment ({', '.join(_RANK)}), but nothing has "
            "started it as one; unset these variables"
        )
    return None


def _end_with_agent() -> None:
    """Have SIGTERM end this rank, saved, where the process that started the ranks is killed."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)


def _join(environment: "ClusterEnvironment") -> None:
    rank, world_size = environment.global_rank(), environment.world_size()
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=_START_SECONDS),
        )
        fence()
    except RuntimeError as e:
        where = f"{environment.main_address}:{environment.main_port}"
        raise RunFailed(
            f"rank {rank} of {world_size} has not met the others at {where} within "
            f"{_START_SECONDS} s; were all started? ({str(e).splitlines()[0]})"
        ) from ConnectionAbortedError()


def _compare(job: Job, is_first: bool) -> None:
    """Raise UserError on rank 0, JobError on others, where configurations as composed differ."""
    own = json.loads(json.dumps(OmegaConf.to_container(job.cfg, resolve=False)))
    every: list[Any] = [None] * distributed.get_world_size()
    with _killed_ranks():
        distributed.all_gather_object(every, own)
    for rank, other in enumerate(every):
        if difference := first_difference(every[0], other):
            if not is_first:
                raise JobError(2)
            key, first, value = difference
            raise UserError(
                f"the ranks have different configurations: {key}={value} at rank {rank}, {first} "
                "at rank 0; start all of them with the same command"
            )


def _received() -> Start:
    """Return the run that rank 0 has made; JobError where it has failed to."""
    logging.getLogger().setLevel(logging.WARNING)
    import ddpm_lightning.run.fitting.fit  # noqa: F401 - while rank 0 builds the run

    message: Start | int = _broadcast(None)
    if isinstance(message, int):
        raise JobError(message)
    return message


def _broadcast(message: Start | int | None) -> Any:
    """Return what rank 0 sends."""
    box = [message]
    with _killed_ranks():
        distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def _killed_ranks() -> Iterator[None]:
    """Raise RunFailed where a rank ends before the run begins, and has not told why."""
    try:
        with lost_ranks():
            yield
    except ConnectionAbortedError as e:
        raise RunFailed("a rank was gone before the run began; was it killed?") from e
