"""Composes a command's configuration under Hydra and turns what goes wrong into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 128 + n ended by
signal n: 130 by Ctrl-C, 143 by SIGTERM.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from ddpm_lightning.run.config import Node, check_options, resolved, settle_paths
from ddpm_lightning.run.console import lasting_console
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, print_error
from ddpm_lightning.run.expand import expanded
from ddpm_lightning.run.text import with_text
from ddpm_lightning.run.threads import yield_cores
from ddpm_lightning.run.words import CONF, describe, refuse_mistakes, root_of, with_home

SWEEP_WORDS = "sweep."  # how to run a sweep, not what
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


class Sweep(NamedTuple):
    """Several jobs.

    words: of the command line, as given, but for those that only say how to run it.
    options: the node `sweep` of the configuration.
    """

    jobs: list[Job]
    words: list[str]
    options: Node


class JobError(Exception):
    """A job in another process has failed, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@lasting_console()
def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Composes conf/{config_name}.yaml with the command line and hands it to task, once per job.

    The jobs of a sweep run where its launcher puts them: one after another, or in other processes
    and on other machines.
    """
    yield_cores()
    sys.argv[1:] = map(with_home, with_text(config_name, sys.argv[1:]))
    codes: list[int] = []
    job = partial(_one_job, task, os.environ.get("HYDRA_FULL_ERROR"), os.getpid(), codes)
    code = attempt(partial(_under_hydra, job, config_name))
    if code := max([code, *codes]):
        sys.exit(code)


def _one_job(
    task: Callable[[DictConfig], None],
    full_error: str | None,
    main_process: int,
    codes: list[int],
    cfg: DictConfig,
) -> None:
    with environment("HYDRA_FULL_ERROR", full_error):  # what the job starts inherits it
        code = attempt(partial(task, cfg))
    codes.append(code)
    if code and os.getpid() != main_process:
        raise JobError(code)  # which the launcher brings back


def _under_hydra(job: Callable[[DictConfig], None], config_name: str) -> None:
    refuse_mistakes(config_name, sys.argv[1:])
    with environment("HYDRA_FULL_ERROR", "1"):  # raise instead of printing summaries of its own
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()


@lasting_console()
def run_jobs(task: Callable[[Job], None], sweep: Callable[[Sweep], None], config_name: str) -> None:
    """The same for a task that asks for more than the configuration, and runs its own sweeps."""
    yield_cores()
    sys.argv[1:] = words = [with_home(word) for word in sys.argv[1:]]
    flags = {word for word in words if word.startswith("-")}
    if flags and flags <= {"-m", "--multirun"}:
        words = [word for word in words if word not in flags]
        code = attempt(lambda: sweep(composed_sweep(config_name, words)))
    else:
        code = attempt(lambda: task(composed(config_name)))
    if code:
        sys.exit(code)


def composed(config_name: str) -> Job:
    """The job that the command line asks for. Does not return from --help and the like."""
    words = sys.argv[1:]
    for word in words:
        if word.startswith(SWEEP_WORDS):
            raise UserError(f"{word} is about sweeps; add -m")
    jobs: list[Job] = []

    def collect(cfg: DictConfig) -> None:
        jobs.append(_job(cfg, HydraConfig.get()))

    if any(word.startswith("-") for word in words):
        _under_hydra(collect, config_name)
    else:  # the same in half the time: Hydra's main composes twice
        refuse_mistakes(config_name, words)
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = _composed(config_name, words)
        configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
        task = [word for word in words if root_of(word) != "hydra"]
        jobs.append(_job(cfg, cfg.hydra)._replace(words=task))
    if len(jobs) > 1:
        raise UserError("-m goes with no other flag; leave it, or them, out")
    if not jobs:
        sys.exit(0)
    return jobs[0]


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


def composed_sweep(config_name: str, words: list[str]) -> Sweep:
    """All jobs, so that a mistake in the last of them is found before the first one starts."""
    refuse_mistakes(config_name, words)
    for word in words:
        if word.startswith(("hydra/launcher", "hydra/sweeper")):
            raise UserError(f"{word}: this command runs its jobs itself; see sweep.executor")
        if root_of(word) in ("resume", "ckpt_path"):
            raise UserError(
                f"{word}: -m begins new runs; the same sweep's command again goes on with its jobs"
            )
    how = [word for word in words if word.startswith(SWEEP_WORDS)]
    made_by = [word for word in words if word not in how]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        options = resolved(compose(config_name, overrides=how))["sweep"]
        check_options("sweep", options)
        loader = GlobalHydra.instance().config_loader()
        jobs = []
        for job in expanded(made_by, loader, options["num_random"], options["seed"]):
            jobs.append(composed_job(config_name, job))
    return Sweep(jobs, made_by, options)


def composed_job(config_name: str, words: list[str]) -> Job:
    """Return the job that words make, where Hydra knows conf/ already."""
    cfg = compose(config_name, overrides=words, return_hydra_config=True)
    return _job(cfg, cfg.hydra)


def _job(cfg: DictConfig, own: DictConfig | HydraConf) -> Job:
    """Args: own: Hydra's node."""
    OmegaConf.set_struct(cfg, False)
    for key in ("sweep", "hydra"):
        cfg.pop(key, None)
    OmegaConf.set_struct(cfg, True)
    settle_paths(cfg)
    words = OmegaConf.to_container(own.overrides.task, resolve=False)  # ${..} as given
    return Job(cfg, cast(list[str], words), dict(own.runtime.choices))


def attempt(part: Callable[[], None]) -> int:
    """Does it and returns the exit code; what went wrong is said on stderr, the cause last."""
    try:
        part()
    except JobError as e:
        return e.code
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError, RunFailed) as e:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":  # set by hand, it asks for whole tracebacks
            raise
        print_error(describe(e))
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
