"""Runs a command under Hydra and turns users' mistakes into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 130 interrupted.
"""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ddpm_lightning.run.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Composes conf/{config_name}.yaml with the command line and hands it to task, once per job."""
    # Hydra raises instead of printing its own summaries; set by hand, it asks for whole tracebacks.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    command = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)
    try:
        command()
    except (UserError, HydraException, OmegaConfBaseException) as e:
        if wants_traceback:
            raise
        print(f"error: {describe(e)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
