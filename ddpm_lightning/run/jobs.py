"""The jobs of a sweep: each is a run directory, frozen before it begins, and a fresh process.

A job is started with `resume=DIRECTORY`, so its process composes nothing: whatever becomes of conf/
meanwhile, and whatever another job leaves in its process, cannot change it.
"""

import ctypes
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ddpm_lightning.run.build import build_denoiser
from ddpm_lightning.run.checkpoint import read_yaml
from ddpm_lightning.run.cli import Job, JobError
from ddpm_lightning.run.compose import check_composed
from ddpm_lightning.run.directory import (
    Start,
    freeze,
    new_start,
    read_status,
    record_failure,
    write_text,
)
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.run.paste import hydra_word
from ddpm_lightning.run.provenance import ROOT
from ddpm_lightning.run.ranking import check_metric, rank
from ddpm_lightning.run.threads import num_cores
from ddpm_lightning.run.words import path_words
from ddpm_lightning.training.watch import how_ended

PLAN = "plan.yaml"  # words and configuration; the run itself may settle what is `auto` in it
_OWN = ("run_id", "run_dir")  # of a start, not of what is to be trained
_POLL_SECONDS = 0.2
# What would make a job a part of what has started the sweep, and Hydra's main leave errors to us.
_LEFT_OUT = {"RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR"}
_LEFT_OUT |= {"MASTER_PORT", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "HYDRA_FULL_ERROR"}
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class Frozen(NamedTuple):
    """A run directory that another process begins or resumes.

    label: what a console calls it.   words: those of the command line that made it.
    """

    directory: Path
    label: str
    words: list[str]

    @property
    def command(self) -> list[str]:
        words = hydra_word("resume", str(self.directory)), *path_words(self.words)
        return [sys.executable, str(ROOT / "train.py"), *words]

    @property
    def is_finished(self) -> bool:
        return bool(read_status(self.directory)["status"] == "finished")

    def value(self, metric: str) -> float:
        """Return the metric at its best step, NaN without one."""
        (score,) = rank(metric, [self.directory / "metrics.csv"], [{}]).scores
        return math.nan if score is None else score.value


def run_job(metric: str, job: Job) -> float:
    """Run a job in a process of its own and return the metric; Hydra's launchers call this.

    Raises:
        UserError: for a mistake in it.   JobError: if it failed.
    """
    own = HydraConfig.get()
    (frozen,) = freeze_jobs([job], own.job.num, Path(own.sweep.dir), metric)
    run_frozen([frozen], 1, is_shown=False)
    if not frozen.is_finished:
        raise JobError(1)
    return frozen.value(metric)


def freeze_jobs(jobs: list[Job], first: int, directory: Path, metric: str) -> list[Frozen]:
    """Write the directories of jobs, unless they are there.

    Args:
        first: the number of the first job.   directory: of the sweep.
    Raises:
        UserError: for a mistake of any job, before one is written; denoisers are built, too.
    """
    check_metric(f"sweep.metric={metric}")
    starts: list[tuple[Start, Frozen]] = []
    built: set[str] = set()
    labels = own_words([job.words for job in jobs])
    for number, (job, label) in enumerate(zip(jobs, labels, strict=True), first):
        # An adaptive sweeper that is started again may give this number to other words.
        digest = hashlib.sha256(json.dumps(job.words).encode()).hexdigest()[:4]
        start = planned_start(job, directory, f"{number:03d}_{digest}_")
        try:
            check_composed(start.config)
            if (model := json.dumps(start.config["model"])) not in built:
                build_denoiser(start.config["model"])
                built.add(model)
        except UserError as e:
            raise UserError(f"job {number} ({label}): {e}") from e
        starts.append((start, Frozen(start.directory, f"[{number}] {label or 'job'}", job.words)))
    if not _is_slurm_job() or os.environ.get("SLURM_PROCID", "0") == "0":
        for start, frozen in starts:
            freeze_start(start, frozen.words)
    return [frozen for _, frozen in starts]


def own_words(jobs: list[list[str]]) -> list[str]:
    """Return the words of each job that are not those of all."""
    shared = set(jobs[0]).intersection(*jobs)
    return [" ".join(word for word in words if word not in shared) for words in jobs]


def planned_start(job: Job, parent: Path, prefix: str = "") -> Start:
    """Return the run of a job, in a directory below parent: prefix and its name."""
    cfg = job.cfg.copy()
    cfg.run_group = parent.name
    start = new_start(job._replace(cfg=cfg))
    return start.at(parent / f"{prefix}{start.cfg.run_name}")


def freeze_start(start: Start, words: list[str]) -> None:
    """Write the directory of a run that is to begin, unless it is there.

    Raises:
        UserError: if it was begun with another configuration.
    """
    directory = start.directory
    container: Any = OmegaConf.to_container(start.cfg, resolve=False)
    now = {"words": words, **{k: value for k, value in container.items() if k not in _OWN}}
    if not (directory / "composed.yaml").exists():  # else it was killed before that
        with user_errors("the sweep's directory"):
            directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / PLAN, yaml.safe_dump(now))
        freeze(start, words)
        return
    stored = read_yaml(directory / PLAN)
    if changed := [key for key in now if now[key] != stored.get(key)]:
        raise UserError(
            f"{directory} was begun with another {', '.join(changed)}; conf/ has changed since. "
            f"Delete {directory.parent} to begin again"
        )


def run_frozen(jobs: list[Frozen], max_parallel: int, is_shown: bool) -> None:
    """Run jobs that are not finished, each in a process, whatever becomes of the others.

    Where several run at a time they share the cores, unless OMP_NUM_THREADS is given, and where
    CUDA_VISIBLE_DEVICES names several devices, each sees its own. What a signal's handler raises
    has all of them save and end first.

    Args:
        is_shown: on the terminal what they print, not in their console.log.
    """
    left = [job for job in jobs if not job.is_finished]
    place = jobs[0].directory.parent
    print(f"{len(jobs)} jobs, {len(jobs) - len(left)} finished before, in {place}")
    running: dict[int, tuple[Frozen, subprocess.Popen[bytes]]] = {}  # by slot
    try:
        while left or running:
            for slot in set(range(max_parallel)) - set(running):
                if left:
                    job = left.pop(0)
                    report(job, "starts")
                    running[slot] = job, _start(job, _environment(slot, max_parallel), is_shown)
            for slot, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    report(job, how_ended(process.returncode))
            time.sleep(_POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def report(job: Frozen, event: str) -> None:
    """Print what has become of a job; one whose process ended before the run began has failed."""
    print(f"{job.label}: {event}", flush=True)
    if event != "starts" and read_status(job.directory)["status"] == "waiting":
        record_failure(job.directory, f"{event} before it began")


def _is_slurm_job() -> bool:
    """Return whether submitit has started this process, in a SLURM job once for every rank."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def _environment(slot: int, max_parallel: int) -> dict[str, str]:
    left_out = {"HYDRA_FULL_ERROR"} if _is_slurm_job() else _LEFT_OUT
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    if max_parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // max_parallel)))
        named = environment.get("CUDA_VISIBLE_DEVICES")
        numbers = map(str, range(torch.cuda.device_count()))
        devices = list(numbers if named is None else filter(None, named.split(",")))
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


def _start(job: Frozen, environment: dict[str, str], is_shown: bool) -> "subprocess.Popen[bytes]":
    with (job.directory / "console.log").open("ab") as file:
        return subprocess.Popen(
            job.command,
            env=environment,
            stdout=None if is_shown else file,
            stderr=None if is_shown else file,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )


def _end_with_parent() -> None:
    # In the child, before it begins; safe, for no other thread of this process holds a lock then.
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)
