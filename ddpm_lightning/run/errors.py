"""Mistakes a user can make, kept apart from our own: these end in a few lines and exit code 2."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException


class UserError(Exception):
    """What was given, what is allowed, what to do."""


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
        raise UserError(f"{where}: {str(cause).strip() or type(cause).__name__}") from e
