"""Runs a command: its configuration is composed under Hydra and handed to its task.

With -m Hydra's sweeper makes jobs of it, and its launcher puts them somewhere.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ddpm_lightning.run.config.console import lasting_console
from ddpm_lightning.run.config.errors import RunFailed, UserError
from ddpm_lightning.run.config.job import Job, JobError, attempt, composed_job, environment, job_of
from ddpm_lightning.run.config.text import with_text
from ddpm_lightning.run.config.torch_environment import prepare_torch
from ddpm_lightning.run.config.words import CONF, refuse_mistakes, with_home


@lasting_console()
def run_command(
    task: Callable[[Job], object],
    config_name: str,
    sweep: Callable[[str, list[str]], None] | None = None,
) -> None:
    """Compose conf/{config_name}.yaml with the command line and do the task; with -m, once a job.

    Args:
        sweep: does what -m asks for by other words; by default Hydra's launcher does task.
    """
    prepare_torch()
    words = sys.argv[1:] = [with_home(word) for word in with_text(config_name, sys.argv[1:])]
    others = [word for word in words if not _is_multirun(word)]
    if len(others) < len(words):
        code = attempt(lambda: _swept(sweep or partial(multirun, task), config_name, others))
    else:
        code = attempt(lambda: _run(task, config_name))
    if code:
        sys.exit(code)


def _swept(sweep: Callable[[str, list[str]], None], config_name: str, words: list[str]) -> None:
    if any(word.startswith("-") for word in words):
        raise UserError("-m goes with no other flag; leave it, or them, out")
    sweep(config_name, words)


def _run(task: Callable[[Job], object], config_name: str) -> None:
    job = composed(config_name)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):  # some compose more
        task(job)


def _is_multirun(word: str) -> bool:
    return word == "-m" or (word.startswith("--m") and "--multirun".startswith(word))


def multirun(task: Callable[[Job], object], config_name: str, words: list[str]) -> None:
    """Have Hydra do a task for each job of a sweep, where the launcher of the words puts it.

    Raises:
        JobError: if a job failed, with the worst exit code.   RunFailed: if a launcher failed.
    """
    from ddpm_lightning.run.sweeps.launcher import register

    register()
    if not any(word.startswith("hydra/sweeper=") for word in words):
        words = ["hydra/sweeper=jobs", *words]
    sys.argv[1:] = ["-m", *words]
    job = partial(_one_job, task, os.environ.get("HYDRA_FULL_ERROR"))
    try:
        _under_hydra(job, config_name)
    except RuntimeError as e:  # a launcher's process of a job was killed, or there is no SLURM
        raise RunFailed(f"{type(e).__name__}: {str(e).partition(chr(10))[0]}") from e


def _one_job(task: Callable[[Job], object], full_error: str | None, cfg: DictConfig) -> object:
    results = []
    with environment("HYDRA_FULL_ERROR", full_error):  # what the job starts inherits it
        code = attempt(lambda: results.append(task(job_of(cfg, HydraConfig.get()))))
    if code:
        raise JobError(code)  # which the launcher brings back
    return results[0]


def _under_hydra(job: Callable[[DictConfig], object], config_name: str) -> None:
    refuse_mistakes(config_name, sys.argv[1:])
    with environment("HYDRA_FULL_ERROR", "1"):  # raise instead of printing summaries of its own
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()


def composed(config_name: str) -> Job:
    """Return the job that the command line asks for. Does not return from --help and the like."""
    words = sys.argv[1:]
    for word in words:
        if word.startswith("sweep."):
            raise UserError(f"{word} is about sweeps; add -m")
    if not any(word.startswith("-") for word in words):  # in half the time: main composes twice
        refuse_mistakes(config_name, words)
        return composed_job(config_name, words)
    jobs: list[Job] = []
    _under_hydra(lambda cfg: jobs.append(job_of(cfg, HydraConfig.get())), config_name)
    if not jobs:
        sys.exit(0)
    return jobs[0]
