"""A sweep: a run directory for each job, frozen before anything starts, and a fresh process each.

A job is started with `resume=DIRECTORY`, so its process composes nothing: whatever becomes of conf/
meanwhile, and whatever another job leaves in its process, cannot change it. The directory of a
sweep is named by its words, so the same command finds it again: what is finished is kept, the rest
goes on.
"""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.files.lock import ProcessLock
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.plots.sweep_page import Row, as_csv, as_html, as_markdown
from ddpm_lightning.run.build import build_denoiser
from ddpm_lightning.run.checkpoint import read_yaml
from ddpm_lightning.run.cli import Job, Sweep
from ddpm_lightning.run.compose import check_composed
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.directory import (
    CLIPS,
    freeze,
    new_start,
    read_status,
    record_failure,
    write_text,
)
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, user_errors
from ddpm_lightning.run.executors import Executor, Local, Submitit
from ddpm_lightning.run.paste import hydra_word
from ddpm_lightning.run.provenance import ROOT
from ddpm_lightning.run.ranking import Score, check_metric, obstacles, rank
from ddpm_lightning.run.secrets import redacted
from ddpm_lightning.run.words import path_words
from ddpm_lightning.training.signals import stopped_by_signals

_IN_ORDER = ("starts", "submitted", "done", "completed")  # events of jobs
_OWN = ("run_id", "run_dir")  # of a start, not of what is to be trained


class Planned(NamedTuple):
    """A job in its directory. words: those in which it differs.   paths: those that give paths."""

    number: int
    directory: Path
    words: list[str]
    paths: list[str]

    @property
    def command(self) -> list[str]:
        words = hydra_word("resume", str(self.directory)), *self.paths
        return [sys.executable, str(ROOT / "train.py"), *words]


def run_sweep(sweep: Sweep) -> None:
    """Runs all jobs that are not finished yet, and writes sweep.md, .csv and .html.

    Raises RunFailed if a job failed, Stopped at SIGINT and SIGTERM, after the jobs have ended.
    """
    check_jobs(sweep)
    outputs = Path(sweep.jobs[0].cfg.outputs_dir)
    directory = (outputs / "sweeps" / _name(sweep)).absolute()
    with user_errors("the sweep's directory"):
        directory.mkdir(parents=True, exist_ok=True)
        lock = ProcessLock(directory / ".lock")
        planned = [
            plan_job(job, i, directory, f"{i:03d}_", _own(job, sweep))
            for i, job in enumerate(sweep.jobs)
        ]
    try:
        run_planned(planned, sweep.options, directory)
    finally:
        rows = _report(planned, directory, sweep)
        lock.release()
    if failed := [row.number for row in rows if row.status != "finished"]:
        raise RunFailed(
            f"{len(failed)} of {len(rows)} jobs failed: {', '.join(map(str, failed))}; the same "
            "command tries them again"
        )


def check_jobs(sweep: Sweep) -> None:
    """Raise UserError for a mistake of any job, before one is written; denoisers are built, too."""
    check_metric(f"sweep.metric={sweep.options['metric']}")
    built: set[str] = set()
    for number, job in enumerate(sweep.jobs):
        try:
            config = new_start(job).config
            check_composed(config)
            if (model := json.dumps(config["model"])) not in built:
                build_denoiser(config["model"])
                built.add(model)
        except UserError as e:
            raise UserError(f"job {number} ({' '.join(_own(job, sweep))}): {e}") from e


def _name(sweep: Sweep) -> str:
    """By what is swept and a hash of all words that make the jobs."""
    made_by = [sweep.words, sweep.options["num_random"], sweep.options["seed"]]
    digest = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:8]
    keys = dict.fromkeys(word.partition("=")[0] for job in sweep.jobs for word in _own(job, sweep))
    return "-".join([*(key.rpartition(".")[2] for key in keys), digest])[-80:]


def _own(job: Job, sweep: Sweep) -> list[str]:
    shared = set.intersection(*(set(other.words) for other in sweep.jobs))
    return [word for word in job.words if word not in shared]


def plan_job(job: Job, number: int, parent: Path, prefix: str, own: list[str]) -> Planned:
    """Return the job in its directory below parent, prefix and the run's name, which is made if it
    is not there yet.

    Args:
        own: the words in which it differs from the others.
    Raises:
        UserError: if its directory was begun with another configuration.
    """
    cfg = job.cfg.copy()
    cfg.run_group = parent.name
    start = new_start(job._replace(cfg=cfg))
    directory = parent / f"{prefix}{start.cfg.run_name}"
    start = start.at(directory)
    plan = directory / "plan.yaml"  # the run itself may settle what is `auto` in it
    container: Any = OmegaConf.to_container(start.cfg, resolve=False)
    now = {key: value for key, value in container.items() if key not in _OWN}
    if not (directory / "composed.yaml").exists():  # else it was killed before that
        directory.mkdir(exist_ok=True)
        write_text(plan, yaml.safe_dump(now))
        freeze(start, job.words)
    else:
        stored = read_yaml(plan)
        if changed := [key for key in now if now[key] != stored.get(key)]:
            raise UserError(
                f"{directory} was begun with another {', '.join(changed)}; conf/ has changed "
                f"since. Delete {parent} to begin again"
            )
    return Planned(number, directory, own, path_words(job.words))


def run_planned(planned: list[Planned], options: Node, directory: Path) -> None:
    """Run the jobs that are not finished yet.

    Args:
        options: the node `sweep` of a configuration.   directory: of the sweep.
    Raises:
        Stopped: at SIGINT and SIGTERM, after the jobs have ended.
    """
    left = [job for job in planned if read_status(job.directory)["status"] != "finished"]
    print(f"{len(planned)} jobs, {len(planned) - len(left)} finished before, in {directory}")
    executor: Executor = (
        Local(options["max_parallel"])
        if options["executor"] == "processes"
        else Submitit(options["executor"], directory / "submitit", options["slurm"])
    )

    commands = [(job.command, job.directory / "console.log") for job in left]
    with stopped_by_signals("the sweep was interrupted; the same command goes on with it"):
        try:
            executor.run(commands, lambda i, event: report_event(left[i], event))
        except Stopped:
            executor.stop()
            raise
        finally:
            executor.join()


def report_event(job: Planned, event: str) -> None:
    """Print what has become of a job; one whose process ended before the run began has failed."""
    print(f"[{job.number}] {' '.join(job.words) or 'job'}: {event}", flush=True)
    if not event.startswith(_IN_ORDER) and read_status(job.directory)["status"] == "waiting":
        record_failure(job.directory, f"{event} before it began")


def _row(job: Planned, score: Score | None, is_best: bool, directory: Path) -> Row:
    status = read_status(job.directory)
    return Row(
        number=job.number,
        words=" ".join(job.words),
        status=status["status"],
        error=status.get("error") or "",
        value=score and score.value,
        standard_error=score and score.standard_error,
        is_best=is_best,
        seconds=status.get("seconds"),
        path=str(job.directory.relative_to(directory)),
    )


def _comparable(job: Job, planned: Planned) -> Node:
    """Return a job's configuration, and which clips its errors are measured on, once it knows."""
    config: Any = OmegaConf.to_container(job.cfg, resolve=False)
    path = planned.directory / CLIPS
    with user_errors(str(path)):
        return {**config, "clips": read_json(path)} if path.exists() else config


def _report(planned: list[Planned], directory: Path, sweep: Sweep) -> list[Row]:
    metric = sweep.options["metric"]
    configs = [_comparable(*pair) for pair in zip(sweep.jobs, planned, strict=True)]
    scores, best, note = rank(metric, [j.directory / "metrics.csv" for j in planned], configs)
    rows = [
        _row(job, score, i == best, directory)
        for i, (job, score) in enumerate(zip(planned, scores, strict=True))
    ]
    table = as_markdown(rows, metric, note)
    write_text(directory / "sweep.md", redacted(table))
    write_text(directory / "sweep.csv", redacted(as_csv(rows, metric)))
    curves = [
        name for name in dict.fromkeys(["train/loss", metric]) if not obstacles(name, configs)
    ]
    page = as_html(rows, metric, note, curves, directory, shlex.join(sweep.words))
    write_text(directory / "sweep.html", redacted(page))
    print(f"\n{table}\n  page           {directory / 'sweep.html'}")
    finished = [directory / row.path for row in rows if row.status == "finished"]
    if finished and all(row.value is None for row in rows):
        names = read_metrics(finished[0] / "metrics.csv")
        logged = (name for name in names if name.startswith(("train/", "val/")))
        print(f"  no job has sweep.metric={metric}; choose {', '.join(logged)}")
    return rows
