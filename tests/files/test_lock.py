"""The lock: one process at a time, and free the moment that process ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.files.lock import ProcessLock

HOLD = (
    "import os, sys, time; from pathlib import Path\n"
    "from ddpm_lightning.files.lock import ProcessLock\n"
    "lock = ProcessLock(Path(sys.argv[1]))\n"
)


Holding = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Holding]:
    """Start a process that holds tmp_path/lock; the process and what it printed."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str = "print(os.getpid(), flush=True)\n") -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", HOLD + code + "time.sleep(60)\n", str(tmp_path / "lock")]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        return processes[-1], processes[-1].stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_second_process_is_told_who_is_first(holding: Holding, tmp_path: Path) -> None:
    process, pid = holding()
    with pytest.raises(
        ValueError, match=f"is in use by process {pid} on .*; wait for its end"
    ) as e:
        ProcessLock(tmp_path / "lock")
    assert "\n" not in str(e.value)
    process.kill()
    process.wait()
    ProcessLock(tmp_path / "lock").release()


@pytest.mark.slow
def test_a_waiting_process_gets_the_lock_when_the_first_ends(
    holding: Holding, tmp_path: Path
) -> None:
    process, _ = holding()
    waiting = Thread(target=lambda: ProcessLock(tmp_path / "lock", wait=True).release())
    waiting.start()
    time.sleep(0.2)
    assert waiting.is_alive()
    process.kill()
    waiting.join(600)
    assert not waiting.is_alive()


def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(
    holding: Holding, tmp_path: Path
) -> None:
    process, worker = holding(
        "if not os.fork(): print(os.getpid(), flush=True)\n"  # by then it has closed the file
    )
    process.kill()
    process.wait()
    os.kill(int(worker), 0)  # it lives
    lock = ProcessLock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    lock.release()
    os.kill(int(worker), signal.SIGKILL)


@pytest.mark.slow
def test_one_process_does_not_get_the_lock_twice(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    for _ in range(2):  # the refusal does not free it
        with pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on"):
            ProcessLock(tmp_path / "lock")
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"is in use by process {os.getpid()} on" in done.stderr
    lock.release()
    ProcessLock(tmp_path / "lock").release()


def test_a_ledger_has_one_writer(tmp_path: Path) -> None:
    in_use = pytest.raises(ValueError, match=f"{tmp_path} is in use by process")
    with Ledger(tmp_path / "ledger.db"), in_use:
        Ledger(tmp_path / "ledger.db")
    Ledger(tmp_path / "ledger.db").close()
