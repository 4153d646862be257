"""Runs a command under Hydra and turns users' mistakes into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 130 interrupted.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ddpm_lightning.run.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
OPTIONAL_GROUPS = ("experiment", "debug")  # null means none of them


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Composes conf/{config_name}.yaml with the command line and hands it to task, once per job."""
    # Hydra raises instead of printing its own summaries; set by hand, it asks for whole tracebacks.
    given = os.environ.get("HYDRA_FULL_ERROR")
    wants_traceback = given == "1"
    mistakes: list[Exception] = []

    def report(error: Exception) -> None:
        if wants_traceback:
            raise error
        mistakes.append(error)
        print(f"error: {describe(error)}", file=sys.stderr)

    @wraps(task)
    def job(cfg: DictConfig) -> None:
        try:
            with environment("HYDRA_FULL_ERROR", given):  # what the job starts inherits it
                task(cfg)
        except UserError as e:  # reported here, so that a sweep goes on with its other jobs
            report(e)

    try:
        refuse_null_groups(sys.argv[1:])
        with environment("HYDRA_FULL_ERROR", "1"):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except (UserError, HydraException, OmegaConfBaseException) as e:
        report(e)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    if mistakes:
        sys.exit(2)


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
