"""The ranks of a run agree on one run, and learn what becomes of each other.

Rank 0 makes the run directory and records the run there; the others go on with it as with any run
that is resumed. Those that Lightning starts are told by their command line where it is. Those that
torchrun or srun has started are told through a store at MASTER_ADDR:MASTER_PORT, once all of them
have shown there that they have the same settings.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from ddpm_lightning.run.cli import Job, JobError
from ddpm_lightning.run.directory import record_failure
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, tell_error
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
    """Of this process, by its environment."""
    return next((int(os.environ[name]) for name in _RANK if name in os.environ), 0)


class Meeting:
    """Where the ranks that torchrun or srun has started find each other.

    Raises RunFailed, here or later, where rank 0 is not there or no longer.
    """

    def __init__(self, environment: "ClusterEnvironment") -> None:
        self.rank, self.world_size = environment.global_rank(), environment.world_size()
        self.host, self.port = environment.main_address, environment.main_port
        self.has_told = False
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
        """Rank 0 waits for all others; UserError for one that has other settings."""
        deadline = time.monotonic() + MAX_START_SECONDS
        for rank in range(1, self.world_size):
            while (found := self._get(f"settings/{rank}")) is None:
                if time.monotonic() > deadline:
                    raise RunFailed(
                        f"rank {rank} of {self.world_size} has not come within "
                        f"{MAX_START_SECONDS} s; were all started, by torchrun or srun?"
                    )
                time.sleep(_POLL_SECONDS)
            if difference := first_difference(settings, json.loads(found)):
                key, first, other = difference
                raise UserError(
                    f"the ranks have different configurations: {key}={other} at rank {rank}, "
                    f"{first} at rank 0; start all of them with the same command"
                )

    def show(self, settings: Any) -> None:
        """Another rank shows rank 0 its settings."""
        self._store.set(f"settings/{self.rank}", json.dumps(settings))

    def tell(self, message: dict[str, Any]) -> None:
        """Rank 0 tells all others where the run is, or with which exit code it has ended."""
        self._store.set("run", json.dumps(message))
        self.has_told = True

    def told(self) -> dict[str, Any]:
        """What rank 0 says, when it does. Raises JobError if its run has ended before."""
        while (found := self._get("run")) is None:
            time.sleep(_POLL_SECONDS)
        message: dict[str, Any] = json.loads(found)
        if "failed" in message:
            raise JobError(message["failed"])
        return message

    def own_address(self) -> str:
        """Where others find this machine; that is not MASTER_ADDR if torchrun placed rank 0
        elsewhere."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
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
    """With the others that torchrun or srun has started; None where they have started one only."""
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


@contextmanager
def gathered(job: Job) -> Iterator[Meeting | None]:
    """Around what rank 0 does: the others have come, and hear of its end if it ends early."""
    settings = _settings(job)
    others = meeting()
    try:
        if others is not None:
            others.gather(settings)
        yield others
    except BaseException as e:
        if others is not None and not others.has_told:
            others.tell({"failed": 2 if isinstance(e, UserError) else 1})
            time.sleep(2 * _POLL_SECONDS)  # the store may end with this process
        raise


@contextmanager
def joined(job: Job, rank: int) -> Iterator[tuple[Job, Watch]]:
    """Around what another rank does, with a job that goes on with the run of rank 0."""
    others = meeting()
    if others is not None:
        others.show(_settings(job))
        message = others.told()
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
def followed(watch: Watch, trainer: "pl.Trainer") -> Iterator[None]:
    """Around training by another rank: rank 0 hears where it is."""
    watch.steps = _steps(trainer)
    yield


@contextmanager
def accompanied(
    others: Meeting | None, directory: Path, resume: Path, trainer: "pl.Trainer"
) -> Iterator[None]:
    """Around training by rank 0: the others are told what to resume, and are watched.

    UserError unless as many have been started as the trainer wants.
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
        others.tell({"resume": str(resume), **here})
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
    """That a callback marks, if there is one."""
    from ddpm_lightning.training.callbacks.hang import HangGuard

    guards = [c for c in trainer.callbacks if isinstance(c, HangGuard)]  # type: ignore[attr-defined]
    return guards[0].steps if guards else None


def _end_process(cause: str | None) -> None:
    if cause is not None:
        print(file=sys.stderr)  # behind the progress bar
        tell_error(cause)
    os._exit(1)


def check_nodes(others: Meeting | None, num_nodes: int) -> None:
    """UserError where nothing has started ranks on other nodes."""
    if others is None and num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={num_nodes}: start the ranks on each node with torchrun or srun"
        )


def _check_number(others: Meeting | None, trainer: "pl.Trainer") -> None:
    wanted = trainer.num_devices * trainer.num_nodes
    if others is not None and others.world_size != wanted:
        raise UserError(
            f"{others.world_size} ranks were started, but trainer.devices={trainer.num_devices} "
            f"trainer.num_nodes={trainer.num_nodes} makes {wanted}"
        )


def _settings(job: Job) -> Any:
    """As composed, before anything is filled in."""
    return json.loads(json.dumps(OmegaConf.to_container(job.cfg, resolve=False)))


def first_difference(first: Any, other: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """(key, first value, other value) at the first key that differs."""
    if not isinstance(first, dict) or not isinstance(other, dict):
        return (key, first, other) if first != other else None
    for name in {**first, **other}:
        where = f"{key}.{name}" if key else name
        if found := first_difference(first.get(name), other.get(name), where):
            return found
    return None
