"""Composes a command's configuration under Hydra and turns what goes wrong into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 128 + n ended by
signal n: 130 by Ctrl-C, 143 by SIGTERM.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm_lightning.run.errors import RunFailed, Stopped, UserError

CONF = Path(__file__).parents[2] / "conf"
OPTIONAL_GROUPS = ("experiment", "debug")  # null means none of them


class Job(NamedTuple):
    """One composed configuration.

    words: of the command line that made it.
    choices: the option of each group.
    number: in a sweep; None outside of one.
    """

    cfg: DictConfig
    words: list[str]
    choices: dict[str, str | None]
    number: int | None


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Composes conf/{config_name}.yaml with the command line and hands it to task, once per job."""
    run_jobs(lambda job: task(job.cfg), config_name)


def run_jobs(
    task: Callable[[Job], None],
    config_name: str,
    sweep: Callable[[list[Job], list[str]], None] | None = None,
) -> None:
    """The same for a task that asks for more than the configuration.

    Exits with the highest code of all jobs; one that fails does not keep the others from running.

    Args:
        sweep: what does the jobs of -m, given the words of the command too; else task does them.
    """
    jobs: list[Job] = []
    code = attempt(lambda: jobs.extend(composed(config_name)))
    if sweep is not None and jobs and jobs[0].number is not None:
        words = [word for word in sys.argv[1:] if not word.startswith("-")]
        codes = [attempt(partial(sweep, jobs, words))]
    else:
        codes = [attempt(partial(task, job)) for job in jobs]
    if code := max(code, *codes, 0):
        sys.exit(code)


def composed(config_name: str) -> list[Job]:
    """The jobs that the command line asks for; only with -m there can be more than one."""
    jobs: list[Job] = []

    def collect(cfg: DictConfig) -> None:
        own = HydraConfig.get()
        number = int(own.job.num) if own.mode == RunMode.MULTIRUN else None
        jobs.append(Job(cfg, list(own.overrides.task), dict(own.runtime.choices), number))

    refuse_null_groups(sys.argv[1:])
    with environment("HYDRA_FULL_ERROR", "1"):  # raise instead of printing summaries of its own
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(collect)()
    return jobs


def attempt(part: Callable[[], None]) -> int:
    """Does it and returns the exit code; what went wrong is said on stderr, the cause last."""
    try:
        part()
    except (UserError, HydraException, OmegaConfBaseException, YAMLError, RunFailed) as e:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":  # set by hand, it asks for whole tracebacks
            raise
        print(f"error: {describe(e)}", file=sys.stderr)
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


def refuse_null_groups(words: list[str]) -> None:
    """UserError for GROUP=null, which Hydra would answer with a stack of frames."""
    for word in words:
        group, _, option = word.partition("=")
        folder = CONF / group.strip("+~")
        if "=" not in word or not group or group in OPTIONAL_GROUPS or not folder.is_dir():
            continue
        if option in {"null", ""}:
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise UserError(f"{word}: the group {group} needs an option; choose {names}")


def describe(error: BaseException) -> str:
    """At most five lines: the message, its cause where Hydra hides it there, and near options."""
    message = str(error)
    if isinstance(error, HydraException) and error.__cause__ is not None:
        cause = str(error.__cause__).split("\n")[0]
        if cause and cause not in message:
            message = f"{message}\n{cause}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("full_key:", "object_type="))]
    near = _near_options(message)
    return "\n".join([*lines[:4], *near])


def _near_options(message: str) -> list[str]:
    """'did you mean ...' for Hydra's complaint about an option that a group does not have."""
    given = next((part for part in message.split("'") if "/" in part), None)
    if "Could not find" not in message or given is None:
        return []
    group, _, name = given.rpartition("/")
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    near = get_close_matches(name, options, n=1)
    return [f"did you mean {group}={near[0]}?"] if near else []
