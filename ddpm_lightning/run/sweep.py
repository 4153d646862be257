"""python train.py -m: every job a run of its own, in a process of its own, from its own frozen
configuration. A job that fails does not stop the others; the same command again goes on with the
sweep.

Hydra composes the jobs; nothing of it is left in their processes, so that the ranks of one job
cannot train different configurations.
"""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from os.path import relpath
from pathlib import Path

import yaml

from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.config import check
from ddpm_lightning.run.directory import create, freeze, new_start, status_of, write_text
from ddpm_lightning.run.errors import RunFailed, user_errors
from ddpm_lightning.run.sweep_table import CONSOLE, Row, row_of, write_tables
from ddpm_lightning.training.signals import stopped_by_signals

_RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL_S = 0.2
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


def sweep(jobs: list[Job], words: list[str]) -> None:
    """Runs what is not finished yet, then tells of all jobs. Raises RunFailed if any failed.

    Args:
        words: of the command; they are how a sweep is known again.
    """
    options = jobs[0].cfg.sweep
    jobs_at_once, num_random = options.jobs_at_once, options.num_random
    check({"jobs_at_once": jobs_at_once, "num_random": num_random})
    if num_random is not None and num_random < len(jobs):
        chosen = random.Random(jobs[0].cfg.seed).sample(range(len(jobs)), num_random)
        jobs = [jobs[number] for number in sorted(chosen)]
    directory = find_sweep(Path(jobs[0].cfg.outputs_dir) / "sweeps", words)
    rows = [prepared(directory, job, words) for job in jobs]
    print(f"{len(rows)} jobs, each a run in {relpath(directory)}")
    try:
        with stopped_by_signals("the sweep was stopped; the same command goes on with it"):
            run_all(rows, jobs_at_once)
    finally:
        tables = write_tables(directory, [row_of(row.number, row.words, row.path) for row in rows])
        print(f"{tables.text}\n  table          {relpath(tables.page)}")
    if failed := sum(status_of(row.path) != "finished" for row in rows):
        raise RunFailed(f"{failed} of {len(rows)} jobs failed; the same command tries them again")


def find_sweep(folder: Path, words: list[str]) -> Path:
    """The directory of the sweep that this command began, or a new one."""
    words = sorted(word for word in words if not word.startswith("sweep.jobs_at_once="))
    for file in sorted(folder.glob("*/sweep.yaml")):
        if yaml.safe_load(file.read_text())["words"] == words:
            return file.parent
    with user_errors("the sweep's directory"):
        number, now = 1, f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            directory = folder / (now if number == 1 else f"{now}_{number}")
            try:
                directory.mkdir()
                break
            except FileExistsError:
                number += 1
        write_text(directory / "sweep.yaml", yaml.safe_dump({"words": words}))
    return directory


def prepared(directory: Path, job: Job, words: list[str]) -> Row:
    """The job's run, frozen: made now, unless an earlier start of the sweep has made it."""
    assert job.number is not None
    fixed = [word for word in job.words if word not in words]  # what tells it from the others
    found = list(directory.glob(f"{job.number}_*/composed.yaml"))
    if found:
        return row_of(job.number, fixed, found[0].parent)
    cfg = job.cfg
    cfg.sweep.name = directory.name
    start = new_start(job)
    start = start.at(directory / f"{job.number}_{start.cfg.run_name}")
    check(start.config)
    start = create(start, is_named=True)
    freeze(start)
    return row_of(job.number, fixed, start.directory)


def run_all(rows: list[Row], jobs_at_once: int) -> None:
    """Those that are not finished; ends them all when it is ended itself."""
    waiting = [row for row in rows if status_of(row.path) != "finished"]
    for row in rows:
        if row not in waiting:
            print(f"  {row.label}: finished before")
    running: dict[int, tuple[Row, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs_at_once:
                row = waiting.pop(0)
                running[row.number] = (row, start_process(row.path))
            for row, process in list(running.values()):
                if process.poll() is not None:
                    del running[row.number]
                    print(f"  {row_of(row.number, row.words, row.path).outcome}", flush=True)
            time.sleep(_POLL_S)
    finally:
        for _, process in running.values():
            process.terminate()  # which saves first
        for _, process in running.values():
            process.wait()


def start_process(path: Path) -> "subprocess.Popen[bytes]":
    """A run in single-run mode, from what lies in its directory."""
    environment = {key: value for key, value in os.environ.items() if key not in _RANKS}
    with (path / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            [sys.executable, sys.argv[0], f"resume='{path}'"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )


def _end_with_parent() -> None:
    # In the child, before it begins; safe, for this process has a single thread.
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)
