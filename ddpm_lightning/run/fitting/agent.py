"""Starts the ranks of a run on this machine; where one fails, all end, and one line says why.

torch.distributed.elastic starts the processes, and when one has failed it sends SIGTERM to the
others and, 30 s later, SIGKILL. Each of them is this command again, with torchrun's environment.
"""

import logging
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ddpm_lightning.run.config.errors import EFFECT_SECONDS, RUN_FILE, how_ended, print_error
from ddpm_lightning.run.config.job import JobError
from ddpm_lightning.run.config.job import environment as set_variable
from ddpm_lightning.run.config.torch_environment import num_cores
from ddpm_lightning.run.directory.start import record_failure
from ddpm_lightning.training.signals import handled

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_STOPPED_SECONDS = 30  # by SIGSTOP, after which a rank is killed
_HOST = "127.0.0.1"


def launch(num_ranks: int) -> None:
    """Train with so many processes of this command.

    Raises:
        JobError: with the exit code of the rank that failed, or that a signal has ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    num_threads = max(1, num_cores() // num_ranks)
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    with TemporaryDirectory() as folder:
        run_file = Path(folder, "run")
        environment = {
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": str(store.port),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "ddpm_lightning",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(num_threads)),
            RUN_FILE: str(run_file),
        }
        ranks = range(num_ranks)
        own = {rank: {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in ranks}
        contexts: list[PContext] = []
        received: set[int] = set()

        def pass_on(number: int, frame: FrameType | None = None) -> None:
            received.add(number)
            for pid in (pid for context in contexts for pid in context.pids().values()):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

        with handled(pass_on), set_variable("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGURG"):
            context = start_processes(
                "rank",
                sys.executable,
                {rank: tuple(sys.argv) for rank in ranks},
                {rank: environment | own[rank] for rank in ranks},
                DefaultLogsSpecs(folder),
            )
            contexts.append(context)
            for number in list(received):  # while they were started
                pass_on(number)
            stopped: Counter[int] = Counter()  # for how many looks in a row, by process
            while (result := context.wait(1, period=0.1)) is None:
                for pid in context.pids().values():
                    stopped[pid] = stopped[pid] + 1 if _is_stopped(pid) else 0
                    if stopped[pid] == _STOPPED_SECONDS:
                        os.kill(pid, signal.SIGKILL)
        if not (failures := result.failures):
            return
        rank = min(failures, key=lambda rank: _ended_at(failures[rank]))
        failure = failures[rank]
        cause = _cause(rank, failure)
        code = failure.exitcode
        if code < 0:
            code = 128 - code if -code in received else 1
        if code in (1, 2):
            made = run_file.read_text() if run_file.exists() else ""
            if made and (rank or failure.exitcode < 0):
                record_failure(Path(made), cause)
            print(file=sys.stderr)  # behind the progress bar
            print_error(cause)
    raise JobError(code)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:  # it has ended, or this is not Linux
        return False


def _ended_at(failure: "ProcessFailure") -> float:
    """Return when a rank failed; later for one that left the cause to another rank to tell."""
    if _has_error(failure):
        return failure.timestamp
    if failure.exitcode == -signal.SIGABRT:  # by NCCL's watchdog: it waited for another
        return failure.timestamp + EFFECT_SECONDS
    return failure.timestamp + (failure.exitcode > 0) * EFFECT_SECONDS / 2


def _has_error(failure: "ProcessFailure") -> bool:
    return Path(failure.error_file).exists()


def _cause(rank: int, failure: "ProcessFailure") -> str:
    """Return why a rank has ended that has made the others end."""
    name = f"rank {rank} (process {failure.pid})"
    if _has_error(failure):
        message = str(failure.error_file_data["message"]["message"])
        return f"{name}: {message}" if rank else message
    hung = failure.exitcode == -signal.SIGKILL  # or was stopped: then it is killed last
    hint = "; if it hung, train.log says where" if hung else ""
    return f"{name}: {how_ended(failure.exitcode)}{hint}"
