"""How a command can end other than well: a user's mistake (exit code 2), a run that failed (1), a
signal (128 + its number).
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException

from ddpm_lightning.run.secrets import redacted
from ddpm_lightning.training.signals import Stopped

__all__ = ["RunFailed", "Stopped", "UserError", "tell_error", "user_errors"]


_ENDS_SECONDS = 10
_MISSING = re.compile(r"(\w+)\.__init__\(\) missing \d+ required .*arguments?: '(\w+)'")


class UserError(Exception):
    """What was given, what is allowed, what to do."""


class RunFailed(Exception):  # noqa: N818 - it is one more way to end
    """The cause in a line, and where its traceback is."""


@contextmanager
def user_errors(where: str) -> Iterator[None]:
    """Turns errors about given values, raised while objects are built from them, into UserError.

    Args:
        where: of the configuration the values come from, put before the message.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, InstantiationException) as e:
        cause = e.__cause__ if isinstance(e, InstantiationException) and e.__cause__ else e
        told = str(cause).strip() or type(cause).__name__
        if missing := _MISSING.match(told):  # a run may be older than the option
            told = f"{missing[1]} needs {missing[2]}, which is not given"
            if where.isidentifier():
                inside = str(e).partition("full_key: ")[2]
                key = ".".join(filter(None, (where, inside, missing[2])))
                told += f"; add ++{key}=VALUE"
        raise UserError(f"{where}: {told}") from e


def tell_error(message: str) -> None:
    """On stderr, and where torchrun looks for what it repeats at its own end."""
    message = redacted(message)
    print(f"error: {message}", file=sys.stderr, flush=True)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # It takes the earliest for the cause: earlier than the ends of ranks that follow from it.
        more = {"py_callstack": message, "timestamp": str(int(time.time()) - _ENDS_SECONDS)}
        Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": more}}))
