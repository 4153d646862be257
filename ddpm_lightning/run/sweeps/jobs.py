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
from omegaconf import OmegaConf

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.plots.sweep_page import Row, as_csv, as_html, as_markdown
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.check import Node, resolved
from ddpm_lightning.run.config.errors import RunFailed, UserError, how_ended, user_errors
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.config.paste import hydra_word
from ddpm_lightning.run.config.secrets import redacted
from ddpm_lightning.run.config.torch_environment import num_cores
from ddpm_lightning.run.config.words import path_words
from ddpm_lightning.run.directory.checkpoint import read_yaml
from ddpm_lightning.run.directory.compose import check_composed
from ddpm_lightning.run.directory.provenance import ROOT
from ddpm_lightning.run.directory.start import (
    CLIPS,
    freeze,
    new_start,
    read_status,
    record_failure,
    write_text,
)
from ddpm_lightning.run.sweeps.ranking import check_metric, obstacles, rank

PLAN = "plan.yaml"  # words and configuration; the run itself may settle what is `auto` in it
_OWN = ("run_id", "run_dir")  # of a start, not of what is to be trained
_POLL_SECONDS = 0.2
_FREEZE_SECONDS = 300  # that the first task of a SLURM job may take for it
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


def freeze_jobs(jobs: list[Job], first: int, directory: Path, metric: str) -> list[Frozen]:
    """Write the directories of jobs, unless they are there.

    Args:
        first: the number of the first job.   directory: of the sweep.
    Raises:
        UserError: for a mistake of any job, before one is written; denoisers are built, too.
    """
    check_metric(f"sweep.metric={metric}")
    built: set[str] = set()
    labels = own_words([job.words for job in jobs])
    for number, (job, label) in enumerate(zip(jobs, labels, strict=True), first):
        try:
            check_composed(config := resolved(job.cfg))
            if (model := json.dumps(config["model"])) not in built:
                build_denoiser(config["model"])
                built.add(model)
        except UserError as e:
            raise UserError(f"job {number} ({label}): {e}") from e
    frozen = []
    for number, (job, label) in enumerate(zip(jobs, labels, strict=True), first):
        # An adaptive sweeper that is started again may give this number to other words.
        digest = hashlib.sha256(json.dumps(job.words).encode()).hexdigest()[:4]
        run = freeze_job(job, directory, f"{number:03d}_{digest}_")
        frozen.append(Frozen(run, f"[{number}] {label or run.name}", job.words))
    return frozen


def own_words(jobs: list[list[str]]) -> list[str]:
    """Return the words of each job that are not those of all."""
    shared = set(jobs[0]).intersection(*jobs)
    return [" ".join(word for word in words if word not in shared) for words in jobs]


def freeze_job(job: Job, parent: Path, prefix: str = "") -> Path:
    """Write the directory of a job, unless it is there: below parent, prefix and the run's name.

    Raises:
        UserError: if it was begun with another configuration.
    """
    cfg = job.cfg.copy()
    cfg.run_group = parent.name
    start = new_start(job._replace(cfg=cfg))
    start = start.at(parent / f"{prefix}{start.cfg.run_name}")
    plan = start.directory / PLAN
    container: Any = OmegaConf.to_container(start.cfg, resolve=False)
    now = {key: value for key, value in container.items() if key not in _OWN}
    composed, is_first = start.directory / "composed.yaml", _is_first_task()
    deadline = time.monotonic() + _FREEZE_SECONDS
    while not is_first and not composed.exists():
        if time.monotonic() > deadline:
            raise RunFailed(f"{composed} is not there; has the job's first task failed?")
        time.sleep(_POLL_SECONDS)
    if composed.exists():
        stored = read_yaml(plan)
        if changed := [key for key in now if now[key] != stored.get(key)]:
            raise UserError(
                f"{start.directory} was begun with another {', '.join(changed)}; conf/ has changed "
                f"since. Delete {parent} to begin again"
            )
    else:
        with user_errors("the sweep's directory"):
            start.directory.mkdir(parents=True, exist_ok=True)
        write_text(plan, yaml.safe_dump({"words": job.words, **now}))
        freeze(start, job.words)
    return start.directory


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


def _is_first_task() -> bool:
    """Return whether this process makes the directories of its job, rather than wait for them."""
    return not _is_slurm_job() or os.environ.get("SLURM_PROCID", "0") == "0"


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


def write_table(jobs: list[Path], metric: str, title: str) -> list[Row]:
    """Write and print the table of jobs that are frozen, by their directories."""
    plans = [read_yaml(job / PLAN) for job in jobs]
    labels = own_words([plan.pop("words") for plan in plans])
    configs = [_comparable(*pair) for pair in zip(jobs, plans, strict=True)]
    scores, best, note = rank(metric, [job / "metrics.csv" for job in jobs], configs)
    rows = []
    for i, (job, label, score) in enumerate(zip(jobs, labels, scores, strict=True)):
        status = read_status(job)
        rows.append(
            Row(
                number=int(job.name.partition("_")[0]),
                words=label,
                status=status["status"],
                error=status.get("error") or "",
                value=score and score.value,
                standard_error=score and score.standard_error,
                is_best=i == best,
                seconds=status.get("seconds"),
                path=job.name,
            )
        )
    directory = jobs[0].parent
    table = as_markdown(rows, metric, note)
    curves = [
        name for name in dict.fromkeys(["train/loss", metric]) if not obstacles(name, configs)
    ]
    page = as_html(rows, metric, note, curves, directory, title)
    for suffix, text in {"md": table, "csv": as_csv(rows, metric), "html": page}.items():
        write_text(directory / f"sweep.{suffix}", redacted(text))
    print(f"\n{table}\n  page           {directory / 'sweep.html'}")
    finished = [directory / row.path for row in rows if row.status == "finished"]
    if finished and all(row.value is None for row in rows):
        names = read_metrics(finished[0] / "metrics.csv")
        logged = (name for name in names if name.startswith(("train/", "val/")))
        print(f"  no job has sweep.metric={metric}; choose {', '.join(logged)}")
    return rows


def _comparable(job: Path, plan: dict[str, Any]) -> Node:
    """Return a job's configuration, and which clips its errors are measured on, once it knows."""
    with user_errors(str(path := job / CLIPS)):
        return {**plan, "clips": read_json(path)} if path.exists() else plan
