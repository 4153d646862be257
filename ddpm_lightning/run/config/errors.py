"""How a command can end other than well: a user's mistake (exit code 2), a run that failed (1), a
signal (128 + its number).
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException

from ddpm_lightning.run.config.secrets import redacted
from ddpm_lightning.training.signals import Stopped

__all__ = ["RunFailed", "Stopped", "UserError", "how_ended", "print_error", "user_errors"]


EFFECT_SECONDS = 60  # more than torchrun gives others until it kills them
RUN_FILE = "DDPM_LIGHTNING_RUN"  # of an agent: where rank 0 writes the run directory
# Groups of conf/ by the last part of a place in a configuration that belongs to one.
_GROUPS = {
    **{name: name for name in ("network", "objective", "loss", "times", "optimizer", "sampler")},
    "schedule": "noise",
}


class UserError(Exception):
    """A user's mistake; str() is what was given, what is allowed, what to do."""


class RunFailed(Exception):  # noqa: N818 - it is one more way to end
    """A run failed; str() is the cause in a line, and where its traceback is."""


@contextmanager
def user_errors(where: str) -> Iterator[None]:
    """Turn errors about values, raised while objects are built from them, into UserError.

    Args:
        where: of the configuration the values come from; it, or the group inside it that the error
            is about, is put before the message.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, InstantiationException) as e:
        cause = e.__cause__ if isinstance(e, InstantiationException) and e.__cause__ else e
        message = str(cause).strip() or type(cause).__name__
        path = str(e).partition("full_key: ")[2] if isinstance(e, InstantiationException) else ""
        known = {"sampler": "sampler"} if where == "callbacks" else _GROUPS
        groups = [known[part] for part in path.split(".") if part in known]
        group = groups[-1] if groups else where
        raise UserError(f"{group}: {message}") from e


def how_ended(status: int) -> str:
    """Return how a process with this return code has ended."""
    if status < 0:
        return f"killed by signal {-status}"
    return "done" if status == 0 else f"ended with exit code {status}"


def print_error(message: str, is_effect: bool = False) -> None:
    """Print an error on stderr; a rank writes it to the file of the agent that has started it.

    Args:
        is_effect: of another rank's end. An agent takes the earliest error for the cause of all.
    """
    message = redacted(message)
    if RUN_FILE not in os.environ:  # else the agent prints one for all ranks
        print(f"error: {message}", file=sys.stderr, flush=True)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # Before the end of this rank, and of those that it ends.
        time_s = int(time.time()) + (EFFECT_SECONDS if is_effect else -1)
        more = {"py_callstack": message, "timestamp": str(time_s)}
        entry = json.dumps({"message": {"message": message, "extraInfo": more}})
        try:
            Path(file).write_text(entry)
        except OSError:  # of a full disk
            print(f"error: {message}", file=sys.stderr, flush=True)
