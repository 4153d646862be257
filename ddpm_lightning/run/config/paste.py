"""Commands that can be pasted: quoted for Hydra, and then for the shell, where they must be."""

import re
import shlex
from os.path import relpath
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def hydra_word(key: str, value: str) -> str:
    """Return the word KEY=VALUE that Hydra reads as this text."""
    words = (f"{key}={value}", f'{key}="{value}"')
    return next((word for word in words if read(word) == value), f"{key}={quoted(value)}")


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


def quoted(text: str) -> str:
    """Return text as a value on a command line of Hydra that stands for itself."""
    # For OmegaConf: backslashes count before ${ alone, where each is written twice.
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)
    # For Hydra: likewise before a quotation mark, the one at the end included.
    text = re.sub(r"(\\*)'", lambda match: 2 * match[1] + r"\'", text)
    text = re.sub(r"\\+$", lambda match: 2 * match[0], text)
    return f"'{text}'"
