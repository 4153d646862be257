"""Where the processes of a sweep run: on this machine, so many at a time, or under SLURM."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpm_lightning.run.config import Node
from ddpm_lightning.run.errors import UserError
from ddpm_lightning.run.threads import num_cores
from ddpm_lightning.training.watch import how_ended

Command = tuple[list[str], Path]  # and the file for what it prints
Report = Callable[[int, str], None]  # about which command, and what

_POLL_SECONDS = 0.2
_RANKS = {  # what would make a job a part of what has started the sweep
    "GROUP_RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "RANK",
    "SLURM_NTASKS",
    "TORCHELASTIC_RUN_ID",
    "WORLD_SIZE",
}
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class Executor(ABC):
    """Runs commands, each in a process of its own, whatever becomes of the others."""

    @abstractmethod
    def run(self, commands: list[Command], report: Report) -> None:
        """Returns when all have ended."""

    @abstractmethod
    def stop(self) -> None:
        """Starts no more, and asks those that run to end."""

    @abstractmethod
    def join(self) -> None:
        """Waits until those that were asked to end have ended."""


class Local(Executor):
    """On this machine.

    Where several run at a time they share the cores, unless OMP_NUM_THREADS is given, and where
    CUDA_VISIBLE_DEVICES names several devices, each sees its own.

    Args:
        max_parallel: at a time; a single one shows on the terminal what it prints.
    """

    def __init__(self, max_parallel: int) -> None:
        self._max_parallel = max_parallel
        self._running: dict[int, subprocess.Popen[bytes]] = {}  # by slot
        self._stopped = False

    def run(self, commands: list[Command], report: Report) -> None:
        devices = visible_devices() if self._max_parallel > 1 else []
        which: dict[int, int] = {}  # slot -> command
        left = list(enumerate(commands))
        while (left and not self._stopped) or self._running:
            for slot in set(range(self._max_parallel)) - set(self._running):
                if left and not self._stopped:
                    which[slot], command = left.pop(0)
                    report(which[slot], "starts")
                    self._running[slot] = self._start(command, slot, devices)
            for slot, process in list(self._running.items()):
                if process.poll() is not None:
                    report(which[slot], how_ended(process.returncode))
                    del self._running[slot]
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        self._stopped = True
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()

    def join(self) -> None:
        for process in self._running.values():
            process.wait()

    def _start(self, command: Command, slot: int, devices: list[str]) -> "subprocess.Popen[bytes]":
        words, console = command
        environment = {k: v for k, v in os.environ.items() if k not in _RANKS}
        if self._max_parallel > 1:
            num_threads = max(1, num_cores() // self._max_parallel)
            environment.setdefault("OMP_NUM_THREADS", str(num_threads))
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        with console.open("ab") as file:
            shown = None if self._max_parallel == 1 else file
            return subprocess.Popen(
                words,
                env=environment,
                stdout=shown,
                stderr=shown,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )


class Submitit(Executor):
    """As SLURM jobs; a job whose time is up saves, and is queued again.

    Args:
        cluster: "slurm", or "submitit_local", which shows on one machine what SLURM would do.
        folder: for submitit's own files.
        parameters: of sbatch, by submitit's names: timeout_min, slurm_partition, gpus_per_node ..
    """

    def __init__(self, cluster: str, folder: Path, parameters: Node) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                f"sweep.executor={cluster} needs submitit; pip install 'ddpm_lightning[launchers]'"
            ) from error
        self._executor: Any = submitit.AutoExecutor(
            folder, cluster=cluster.removeprefix("submitit_")
        )
        try:
            self._executor.update_parameters(**{"name": "ddpm_lightning", **parameters})
        except (NameError, TypeError, ValueError) as error:
            raise UserError(f"sweep.slurm: {error}") from error
        self._jobs: list[Any] = []

    def run(self, commands: list[Command], report: Report) -> None:
        with self._executor.batch():
            self._jobs = [self._executor.submit(Process(*command)) for command in commands]
        for i, job in enumerate(self._jobs):
            report(i, f"submitted as {job.job_id}")
        waiting = dict(enumerate(self._jobs))
        while waiting:
            for i, job in list(waiting.items()):
                if job.done():
                    report(i, str(job.state).lower())
                    del waiting[i]
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        for job in self._jobs:
            job.cancel(check=False)

    def join(self) -> None:
        while not all(job.done() for job in self._jobs):
            time.sleep(_POLL_SECONDS)


class Process:
    """A command as submitit runs it: in a process below submitit's own."""

    def __init__(self, words: list[str], console: Path) -> None:
        self.words, self.console = words, console
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        with self.console.open("ab") as file:
            self._child = subprocess.Popen(self.words, stdout=file, stderr=file)
        while (status := self._child.poll()) is None:  # not wait: checkpoint() comes in between
            time.sleep(_POLL_SECONDS)
        if status:
            raise RuntimeError(f"{how_ended(status)}; see {self.console}")
        return status

    def checkpoint(self) -> Any:
        """Called by submitit before the time is up: the run saves and ends, and goes on later."""
        import submitit

        if self._child is not None:
            self._child.terminate()
            while self._child.poll() is None:
                time.sleep(_POLL_SECONDS)
        return submitit.helpers.DelayedSubmission(Process(self.words, self.console))


def _end_with_parent() -> None:
    # In the child, before it begins; safe, for this process has a single thread.
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)


def visible_devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or else all GPUs that nvidia-smi knows of."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    try:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []
