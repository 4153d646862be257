"""The ranks of a run agree on one run, and watch each other.

Rank 0 creates the run directory and records the run there; the others resume it like any other run.
Those that Lightning starts receive its path on their command line. Those that torchrun or srun has
started receive it through a store at MASTER_ADDR:MASTER_PORT, once all of them have shown there
that they have the same settings.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf
from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from ddpm_lightning.run.cli import Job, JobError
from ddpm_lightning.run.config import first_difference
from ddpm_lightning.run.directory import record_failure
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, print_error
from ddpm_lightning.run.slurm import continued
from ddpm_lightning.training.steps import Steps
from ddpm_lightning.training.watch import LOOPBACK, FirstRankWatch, OtherRankWatch, Watch

if TYPE_CHECKING:  # Lightning takes seconds to import, which one rank need not wait for
    import lightning.pytorch as pl
    from lightning.fabric.plugins import ClusterEnvironment

MAX_START_SECONDS = 300  # from the first rank's start to the last one's
_POLL_SECONDS = 0.1
_END_SECONDS = 30  # for ranks that Lightning has started to follow rank 0 to its end
_RANK = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # where Lightning finds it, in this order
_STARTED_BY = {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"}
_ADDRESS = "DDPM_LIGHTNING_RANK_0"  # PORT:TOKEN of rank 0's watch, for them


def own_rank() -> int:
    """Return the rank of this process, by its environment."""
    return next((int(os.environ[name]) for name in _RANK if name in os.environ), 0)


class Meeting:
    """Exchanges messages, through a store, among ranks that torchrun or srun has started.

    Raises:
        RunFailed: here or later, where rank 0 is not there or no longer.
    """

    def __init__(self, environment: "ClusterEnvironment") -> None:
        self.rank, self.world_size = environment.global_rank(), environment.world_size()
        self.host, self.port = environment.main_address, environment.main_port
        self.has_sent = False
        is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun
        try:
            store = TCPStore(
                self.host,
                self.port,
                is_master=self.rank == 0 and not is_served,
                timeout=timedelta(seconds=MAX_START_SECONDS),
                wait_for_workers=False,
                multi_tenant=True,  # training's own process group will use it as well
            )
        except DistError as e:
            where = f"{self.host}:{self.port}"
            raise RunFailed(f"rank {self.rank} does not reach rank 0 at {where}: {e}") from e
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"ddpm_lightning/{attempt}", store)

    def gather(self, settings: Any) -> None:
        """Wait, as rank 0, for the settings of all others; UserError where they differ."""
        deadline = time.monotonic() + MAX_START_SECONDS
        for rank in range(1, self.world_size):
            while (own := self._get(f"settings/{rank}")) is None:
                if time.monotonic() > deadline:
                    raise RunFailed(
                        f"rank {rank} of {self.world_size} has not come within "
                        f"{MAX_START_SECONDS} s; were all started, by torchrun or srun?"
                    )
                time.sleep(_POLL_SECONDS)
            if difference := first_difference(settings, json.loads(own)):
                key, first, other = difference
                raise UserError(
                    f"the ranks have different configurations: {key}={other} at rank {rank}, "
                    f"{first} at rank 0; start all of them with the same command"
                )

    def show(self, settings: Any) -> None:
        """Send the settings of another rank to rank 0."""
        self._store.set(f"settings/{self.rank}", json.dumps(settings))

    def send(self, message: dict[str, Any]) -> None:
        """Send to all others, as rank 0, where the run is, or the exit code that ended it."""
        self._store.set("run", json.dumps(message))
        self.has_sent = True

    def receive(self) -> dict[str, Any]:
        """Receive the message of rank 0; JobError if its run has ended before."""
        while (text := self._get("run")) is None:
            time.sleep(_POLL_SECONDS)
        message: dict[str, Any] = json.loads(text)
        if "failed" in message:
            raise JobError(message["failed"])
        return message

    def own_address(self) -> str:
        """Return where others reach this machine: MASTER_ADDR only if rank 0 was placed there."""
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing
            own = str(probe.getsockname()[0])
        return self.host if own.startswith(("127.", "::1")) else own

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key) if self._store.check([key]) else None
        except DistError as e:
            raise RunFailed("rank 0 was gone before the run began; was it killed?") from e


def meeting() -> Meeting | None:
    """Return the meeting of all that torchrun or srun has started; None for a single process."""
    if not _STARTED_BY & os.environ.keys():
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            try:
                environment = kind()
            except RuntimeError as e:
                raise UserError(str(e)) from e
            return Meeting(environment) if environment.world_size() > 1 else None
    return None


class Ranks(NamedTuple):
    """This process's place among the ranks of a run.

    job: to be done here; another rank than the first resumes the run of rank 0.
    meeting: of rank 0 with those that torchrun or srun has started.   watch: of rank 0 by another.
    """

    job: Job
    is_first: bool
    meeting: Meeting | None = None
    watch: Watch | None = None

    def check_nodes(self, num_nodes: int) -> None:
        """Raise UserError where nothing has started ranks on other nodes."""
        if self.is_first and self.meeting is None and num_nodes > 1:
            raise UserError(
                f"trainer.num_nodes={num_nodes}: start the ranks on each node with torchrun or srun"
            )

    @contextmanager
    def heartbeat(self, trainer: "pl.Trainer", directory: Path, resume: Path) -> Iterator[None]:
        """Watch the other ranks during training; rank 0 first sends them what to resume."""
        if self.watch is not None:
            self.watch.steps = _steps(trainer)
            yield
        else:
            with _first_heartbeat(self.meeting, trainer, directory, resume):
                yield


@contextmanager
def rendezvous(job: Job) -> Iterator[Ranks]:
    """Find the other ranks of a run around all that this process does for it."""
    if rank := own_rank():
        logging.getLogger().setLevel(logging.WARNING)
        with _joined(job, rank) as (own, watch):
            yield Ranks(own, is_first=False, watch=watch)
    else:
        with _gathered(job) as meeting:
            yield Ranks(continued(job), is_first=True, meeting=meeting)


@contextmanager
def _gathered(job: Job) -> Iterator[Meeting | None]:
    """Wait for the other ranks, and send them the exit code if rank 0 exits early."""
    settings = _settings(job)
    others = meeting()
    try:
        if others is not None:
            others.gather(settings)
        yield others
    except BaseException as e:
        if others is not None and not others.has_sent:
            others.send({"failed": 2 if isinstance(e, UserError) else 1})
            time.sleep(2 * _POLL_SECONDS)  # the store may end with this process
        raise


@contextmanager
def _joined(job: Job, rank: int) -> Iterator[tuple[Job, Watch]]:
    """Receive from rank 0 which run to resume, and watch rank 0 from then on."""
    others = meeting()
    if others is not None:
        others.show(_settings(job))
        message = others.receive()
        cfg = job.cfg.copy()
        cfg.ckpt_path = message["resume"]
        job = job._replace(cfg=cfg, words=[])
        address, token = (message["host"], message["port"]), message["token"]
    elif _ADDRESS in os.environ:
        port, _, token = os.environ[_ADDRESS].partition(":")
        address = LOOPBACK, int(port)
    else:
        raise UserError(
            f"this process is rank {rank} by its environment (RANK, LOCAL_RANK, SLURM_PROCID), but "
            "nothing has started it as one; unset these variables"
        )

    def end(cause: str, is_told: bool) -> None:
        _end_process(None if is_told else cause)

    try:
        watch = OtherRankWatch(rank, end, address, token)
    except OSError as e:
        raise RunFailed(f"rank {rank} does not reach rank 0 at {address[0]}: {e}") from e
    with _watched(watch):
        yield job, watch


@contextmanager
def _first_heartbeat(
    others: Meeting | None, trainer: "pl.Trainer", directory: Path, resume: Path
) -> Iterator[None]:
    """Send the other ranks what to resume, and watch them.

    Raises:
        UserError: unless as many have been started as the trainer wants.
    """
    _check_number(others, trainer)
    if trainer.num_devices * trainer.num_nodes == 1:
        yield
        return
    children: list[subprocess.Popen[bytes]] = []

    def adopt() -> list["subprocess.Popen[bytes]"]:
        # From Lightning, whose own observer would kill this process for one of them, unheard.
        launched = getattr(trainer.strategy.launcher, "procs", [])
        children.extend(launched)
        launched.clear()
        return children

    def end(cause: str, is_told: bool) -> None:
        record_failure(directory, cause)
        for child in adopt():
            child.kill()
        _end_process(cause)

    watch = FirstRankWatch(end, adopt, is_local=others is None)
    watch.steps = _steps(trainer)
    if others is None:
        os.environ[_ADDRESS] = f"{watch.port}:{watch.token}"
    else:
        here = {"host": others.own_address(), "port": watch.port, "token": watch.token}
        others.send({"resume": str(resume), **here})
    try:
        with _watched(watch):
            yield
        for child in adopt():
            child.wait(_END_SECONDS)
    finally:
        for child in adopt():
            child.kill()


@contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    try:
        yield
    except Stopped:
        watch.end()
        raise
    except BaseException as e:
        watch.end(next(iter(str(e).splitlines()), type(e).__name__))
        raise
    watch.end()


def _steps(trainer: "pl.Trainer") -> Steps | None:
    """Return the steps that a callback marks, None without one."""
    from ddpm_lightning.training.callbacks.hang import HangGuard

    guards = [c for c in trainer.callbacks if isinstance(c, HangGuard)]  # type: ignore[attr-defined]
    return guards[0].steps if guards else None


def _end_process(cause: str | None) -> None:
    if cause is not None:
        print(file=sys.stderr)  # behind the progress bar
        print_error(cause)
    os._exit(1)


def _check_number(others: Meeting | None, trainer: "pl.Trainer") -> None:
    wanted = trainer.num_devices * trainer.num_nodes
    if others is not None and others.world_size != wanted:
        raise UserError(
            f"{others.world_size} ranks were started, but trainer.devices={trainer.num_devices} "
            f"trainer.num_nodes={trainer.num_nodes} makes {wanted}"
        )


def _settings(job: Job) -> Any:
    """Return the configuration as composed, before anything is filled in."""
    return json.loads(json.dumps(OmegaConf.to_container(job.cfg, resolve=False)))
