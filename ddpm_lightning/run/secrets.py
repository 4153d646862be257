"""Logins in addresses, user:password@host, are neither stored nor shown.

A run's configuration travels with it, so a login comes from the environment each time it is needed:
data.list='https://${oc.env:LOGIN}@host/list.tsv'. Only that is stored as it is given.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

_LOGIN = re.compile(r"://[^/@\s$]*:[^/@\s$]*@")


def redacted(value: Any) -> Any:
    """The same text, or containers of text, without logins."""
    if isinstance(value, str):
        return _LOGIN.sub("://***@", value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list) else value


def find_login(unresolved: Any) -> str | None:
    """The key of one that a configuration holds itself, and does not take from the environment."""
    return next((key for key, text in _texts(unresolved, "") if _LOGIN.search(text)), None)


def redact_logs() -> None:
    """From now on, in whatever is logged."""
    make = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        made.msg, made.args = redacted(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _texts(item, f"{where}[{i}]")
