"""Logins in addresses, user:password@host, and what a configuration takes from the environment are
neither stored nor shown.

A run's configuration travels with it, so a secret comes from the environment each time it is
needed: data.list='https://${oc.env:LOGIN}@host/list.tsv'. Only that is stored as it is given.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import Container, OmegaConf
from omegaconf.resolvers import oc

_LOGIN = re.compile(r"://(?!git@)[^/@\s$]+@")  # git@ is anyone
HIDDEN = "***"
_MIN_LENGTH = 8  # of a secret: "2" or "gifs" would be found all over a log
_secrets: set[str] = set()  # in every spelling


def redacted(value: Any) -> Any:
    """Return text, or containers of text, without secrets; names of classes stay."""
    if isinstance(value, str):
        for secret in sorted(_secrets, key=len, reverse=True):  # one may hold another
            value = value.replace(secret, HIDDEN)
        return _LOGIN.sub(f"://{HIDDEN}@", value)
    if isinstance(value, dict):
        return {k: item if k == "_target_" else redacted(item) for k, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list) else value


def find_login(unresolved: Any) -> str | None:
    """Return the key of a login that a configuration holds itself, if any."""
    return next((key for key, text in find_leaves(unresolved) if _LOGIN.search(str(text))), None)


def redact_logs() -> None:
    """Redact whatever is logged from now on."""
    make = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        entry = make(*args, **kwargs)
        with suppress(Exception):  # a wrong format, which logging itself reports
            entry.msg, entry.args = redacted(entry.getMessage()), ()
        return entry

    logging.setLogRecordFactory(record)


def _from_environment(name: str, *default: Any, _parent_: Container, _root_: Container) -> Any:
    """Resolve ${oc.env:NAME,default}; what it gives is a secret from now on.

    Not what names the run (run_name, run_dir: values of no group), a place on this machine or a
    number.
    """
    value = oc.env(name, *default)
    if value and name in os.environ and _parent_ is not _root_ and _may_be_secret(value):
        _secrets.update((value, quote(value), json.dumps(value)[1:-1]))
    return value


OmegaConf.register_new_resolver("oc.env", _from_environment, replace=True)


def _may_be_secret(value: str) -> bool:
    is_place = os.path.exists(Path(*Path(value).parts[:2]))  # what is below may be made yet
    is_place = is_place or value in (*Path.cwd().parts, *Path.home().parts)  # a user's name, say
    return len(value) >= _MIN_LENGTH and not value.isdigit() and not is_place


def find_leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what containers hold that is no container, with its key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_leaves(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from find_leaves(item, f"{where}[{i}]")
    else:
        yield where, value
