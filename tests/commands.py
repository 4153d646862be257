"""Calling the commands as a user would: in this process (fastest) or as one of their own (`spawn`).

`start` and `spawn` fork a server that has imported torch, Lightning and the package already
(tests.forkserver), which saves three quarters of a short run's time. A test says `cold=True`, or
starts Python itself, where what a new interpreter does is its subject:

    run/test_console        a shell's redirections
    run/test_directory      a full disk: pipes take what files, which a forked run writes, refuse
    run/test_forkserver     that a forked run leaves what a cold one leaves
    run/test_imports        what is not imported
    run/test_ingest         ingest.py: Hydra's launchers start its jobs, and torch is not imported
    run/test_interrupted    a signal before the first step, while modules are imported
    run/test_killed         two ranks: Lightning reads the rank from the environment at its import
    run/test_mistakes       mistakes, broken YAML: what is printed, and what is not imported
    run/test_agent          ranks that train nothing
    run/test_ranks          ranks, started by an agent, torchrun and srun
    run/test_secrets        a sweep, whose jobs inherit secrets in the environment
    run/test_sweep          sweeps and their jobs
    run/test_torch_environment        OpenMP reads the environment when torch is imported
    training/test_compilation   the compiler's environment is read at import
    training/test_process_group     ranks that only wait for each other
    data/, networks/        processes that import no torch, or whose memory is measured

Forked all the same: tests that set variables which are read when they are used (SLURM, W&B).
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

import evaluate
import export
import ingest
import inspect_data
import sample
import show
import study
import train
from ddpm_lightning.data.gif import encode
from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.commands.sweep import run_sweep
from tests.forkserver import BLANK, ROOT, Forked

COMMANDS = {
    "train": lambda: run_command(train.main, "config", run_sweep),
    "sample": lambda: run_command(sample.main, "sample"),
    "evaluate": lambda: run_command(evaluate.main, "evaluate"),
    "export": lambda: run_command(export.main, "export"),
    "ingest": lambda: run_command(ingest.main, "ingest"),
    "inspect_data": lambda: run_command(inspect_data.main, "inspect_data"),
    "show": lambda: run_command(show.main, "show"),
    "study": lambda: run_command(study.main, "study"),
}

# The smallest run that does everything the default does.
TINY = [
    "data=gif_folder",
    "data.path=gifs",
    "data.size=8",
    "data.num_frames=4",
    "data.channels=1",
    "data.batch_size=2",
    "data.val_fraction=0.3",
    "network.base_width=16",
    "network.width_multipliers=[1,2]",
    "network.spatial_attention=[none,full]",
    "network.head_width=8",
    "network.patch=1",
    "noise.num_steps=50",
    "sampler.num_evaluations=4",
    "callbacks.samples.num_samples=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]


class Result(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


class Capture(Protocol):
    """What has been printed since it was last read, as pytest's capsys returns it."""

    def readouterr(self) -> tuple[str, str]: ...


def write_gifs(folder: Path, num_gifs: int = 8, size: int = 8, num_frames: int = 6) -> Path:
    """Real GIF files: a bright square that wanders over a dark ground. Seeded by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_gifs):
        rng = np.random.default_rng(number)
        x, y = rng.integers(0, size - 2, 2)
        frames = np.full((num_frames, size, size, 3), 20, dtype=np.uint8)
        for i, frame in enumerate(frames):
            column = (x + i) % (size - 2)
            frame[y : y + 3, column : column + 3] = 120 + 10 * number % 136
        (folder / f"{number:02d}.gif").write_bytes(encode(frames, [100] * num_frames))
    return folder


def call_in(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Call:
    """A function that runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(folder)

    def call(command: str, *arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        code = 0
        try:
            COMMANDS[command]()
        except SystemExit as e:
            code = int(e.code or 0)
        finally:
            GlobalHydra.instance().clear()
        return Result(code, *capsys.readouterr())

    return call


Process = Forked | subprocess.Popen[str]


def environment() -> dict[str, str]:
    """Return that of a command: this checkout is imported, and one thread computes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(
    folder: Path, command: str, *arguments: str, cold: bool = False, draws: bool = False
) -> Process:
    """Start a command as a process of its own, in a folder of its own, without a terminal.

    Args:
        command: a Python file of the repository, without its ending: train, tests/run/recorder.
        cold: in a new interpreter, not one forked from one that has imported torch.
        draws: its figures; else, unless it is cold, they are one pixel.
    """
    words = [str(ROOT / f"{command}.py"), *arguments]
    if not cold:
        return Forked(words, folder, environment() | ({} if draws else {BLANK: "1"}))
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def spawn(
    folder: Path,
    command: str,
    *arguments: str,
    cold: bool = False,
    draws: bool = False,
    timeout: float = 600,
) -> Result:
    """Run a command as a process of its own to its end."""
    process = start(folder, command, *arguments, cold=cold, draws=draws)
    try:
        out, err = process.communicate(timeout=timeout)
        assert process.returncode is not None
        return Result(process.returncode, out, err)
    finally:
        process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 600, every: float = 0.05) -> None:
    """Return as soon as the condition holds; fail after a time that no busy machine needs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every)


def alive(folder: Path) -> list[int]:
    """The processes that run in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink() == folder:
                found.append(int(place.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def most_resident() -> int:
    """KiB that this process has held so far; ru_maxrss would begin at what its parent held."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1])


def newest_run(folder: Path) -> Path:
    """The run directory that was written last below a folder's outputs/."""
    return max((folder / "outputs").rglob("config.yaml"), key=lambda p: p.stat().st_mtime).parent


def assert_user_error(result: Result, *words: str) -> None:
    """Exit code 2 and one to five lines that hold the words, without a traceback."""
    assert result.code == 2, result
    lines = result.err.strip().splitlines()
    assert 1 <= len(lines) <= 5, result.err
    assert "Traceback" not in result.err
    assert [word for word in words if word not in result.err] == [], result.err
