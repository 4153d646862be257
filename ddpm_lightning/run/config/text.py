"""Words of a command line whose values are text: Hydra must not read them as lists or sweeps.

What is asked of samples, `caption=a dog, jumping (left)`, may hold whatever a shell hands on. Such
a word becomes `+asked.caption='..'`, quoted so that it is that text for Hydra and for OmegaConf.
"""

import os
from collections.abc import Sequence

import yaml

from ddpm_lightning.run.config.paste import quoted
from ddpm_lightning.run.config.words import CONF, options

PLAIN = ("init", "keep", "mask")  # keys of sample.yaml that take text
ASKED = "asked"  # the node of sample.yaml that takes the text of each condition


def with_text(config_name: str, words: list[str]) -> list[str]:
    """Return a command's words with those of sample.py that name a condition, or a file of values
    of one (captions=FILE), a file or frames to keep, as text for Hydra; and those of show.py as in
    `with_film`.
    """
    if config_name == "show":
        return with_film(words)
    if config_name != "sample":
        return words
    conditions = [name for name in options("condition") if name != "none"]
    files = [f"{name}s" for name in conditions]
    return [_with_text(word, conditions, files) for word in words]


def with_film(words: list[str]) -> list[str]:
    """Return show.py's words with the first, FILM, as film=FILM, and its keys as film.KEY=VALUE."""
    if not words or not words[0].isidentifier():
        return words
    file = CONF / "film" / f"{words[0]}.yaml"
    node = yaml.safe_load(file.read_text()) if file.is_file() else {}
    own = {key for key, value in node.items() if "${" not in str(value)}
    more = [f"film.{word}" if word.partition("=")[0] in own else word for word in words[1:]]
    return [f"film={words[0]}", *more]


def _with_text(word: str, conditions: Sequence[str], files: Sequence[str]) -> str:
    key, equals, text = word.lstrip("+").partition("=")
    if not equals:
        return word
    if key in conditions:
        return f"+{ASKED}.{key}={quoted(text)}"
    if key in files:
        return f"+{ASKED}.{key}={quoted(os.path.expanduser(text))}"
    if key in PLAIN and text != "null":
        return f"{key}={quoted(os.path.expanduser(text))}"
    return word
