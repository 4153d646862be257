"""Commands that can be pasted: quoted for Hydra, and then for the shell, where they must be."""

import shlex
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def hydra_word(key: str, value: str) -> str:
    """Return the word KEY=VALUE that Hydra reads as this text."""
    return next(word for word in _spellings(key, value) if read(word) == value)


def read(word: str) -> Any:
    """Return the value that Hydra reads in a word, or the exception that says why it does not."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException as error:
        return error


def command(script: str, *words: str) -> str:
    """Return what a user types to call a script with these words."""
    return shlex.join(["python", script, *words])


def path_command(script: str, key: str, path: Path, *words: str) -> str:
    """Return the command with KEY=PATH, the path relative to here."""
    return command(script, hydra_word(key, relpath(path)), *words)


def _spellings(key: str, value: str) -> Iterator[str]:
    yield f"{key}={value}"
    for quote in "\"'":
        yield f"{key}={quote}{value}{quote}"
    for quote in "\"'":
        escaped = value.replace("\\", "\\\\").replace(quote, f"\\{quote}")
        yield f"{key}={quote}{escaped}{quote}"
