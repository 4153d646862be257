"""Composes a command's configuration under Hydra and turns what goes wrong into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 128 + n ended by
signal n: 130 by Ctrl-C, 143 by SIGTERM.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, cast

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm_lightning.run.config import settle_paths
from ddpm_lightning.run.console import lasting_console
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, print_error
from ddpm_lightning.run.text import with_text
from ddpm_lightning.run.threads import yield_cores
from ddpm_lightning.run.words import CONF, describe, refuse_mistakes, root_of, with_home

# Keys that say which run goes on and where, not what is trained.
NOT_OF_THE_RUN = ("resume", "ckpt_path", "outputs_dir", "sweep", "hydra")


class Job(NamedTuple):
    """One composed configuration.

    words: of the command line that made it.
    choices: the option of each group.
    """

    cfg: DictConfig
    words: list[str]
    choices: dict[str, str | None]


class JobError(Exception):
    """A job in another process has failed, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


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
    yield_cores()
    words = sys.argv[1:] = [with_home(word) for word in with_text(config_name, sys.argv[1:])]
    others = [word for word in words if not _is_multirun(word)]
    if len(others) < len(words):
        code = attempt(lambda: (sweep or partial(multirun, task))(config_name, others))
    else:
        code = attempt(lambda: _run(task, config_name))
    if code:
        sys.exit(code)


def _run(task: Callable[[Job], object], config_name: str) -> None:
    job = composed(config_name)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):  # some compose more
        task(job)


def _is_multirun(word: str) -> bool:
    return word == "-m" or (word.startswith("--m") and "--multirun".startswith(word))


def multirun(task: Callable[[Job], object], config_name: str, words: list[str]) -> None:
    """Have Hydra do a task for each job of a sweep, where the launcher of the words puts it.

    Raises:
        JobError: if a job failed, with the worst exit code.
    """
    from ddpm_lightning.run.launcher import register

    register()
    if any(word.startswith("-") for word in words):
        raise UserError("-m goes with no other flag; leave it, or them, out")
    if not any(word.startswith("hydra/sweeper=") for word in words):
        words = ["hydra/sweeper=jobs", *words]
    sys.argv[1:] = ["-m", *words]
    _under_hydra(partial(_one_job, task, os.environ.get("HYDRA_FULL_ERROR")), config_name)


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


def composed_job(config_name: str, words: list[str]) -> Job:
    """Return the job that words make."""
    with ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():  # as it is within a command
            stack.enter_context(initialize_config_dir(version_base="1.3", config_dir=str(CONF)))
        cfg = _composed(config_name, words)
    configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
    task = [word for word in words if root_of(word) != "hydra"]
    return job_of(cfg, cfg.hydra)._replace(words=task)


def _composed(config_name: str, words: list[str]) -> DictConfig:
    """With Hydra's node. Words that do not fit today's defaults may fit the run that goes on."""
    try:
        return compose(config_name, words, return_hydra_config=True)
    except HydraException:
        own = [word for word in words if root_of(word) in NOT_OF_THE_RUN]
        cfg = compose(config_name, own, return_hydra_config=True)
        if cfg.get("ckpt_path") is None:
            raise
        return cfg


def job_of(cfg: DictConfig, own: DictConfig | HydraConf) -> Job:
    """Return the job of a configuration. Args: own: Hydra's node."""
    OmegaConf.set_struct(cfg, False)
    for key in ("sweep", "hydra"):
        cfg.pop(key, None)
    OmegaConf.set_struct(cfg, True)
    settle_paths(cfg)
    given = cast(list[str], OmegaConf.to_container(own.overrides.task, resolve=False))  # with ${..}
    words = [word for word in given if root_of(word) != "sweep"]
    return Job(cfg, words, dict(own.runtime.choices))


def attempt(part: Callable[[], object]) -> int:
    """Does it and returns the exit code; what went wrong is said on stderr, the cause last."""
    try:
        part()
    except JobError as e:
        return e.code
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError, RunFailed) as e:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":  # set by hand, it asks for whole tracebacks
            raise
        print_error(describe(e), is_effect=isinstance(e.__cause__, ConnectionAbortedError))
        return 1 if isinstance(e, RunFailed) else 2
    except Stopped as e:
        print(e, file=sys.stderr)
        return 128 + e.signal_number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """An environment variable with a value, or without one for None, for a while."""
    before = os.environ.pop(name, None)
    try:
        if value is not None:
            os.environ[name] = value
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
