"""Words of a command line whose values are text: Hydra must not read them as lists or sweeps.

What is asked of samples, `caption=a dog, jumping (left)`, may hold whatever a shell hands on. Such
a word becomes `+asked.caption='..'`, quoted so that it is that text for Hydra and for OmegaConf.
"""

import os

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
    asked = [*conditions, *(f"{name}s" for name in conditions)]
    places = {key: f"+{ASKED}.{key}" for key in asked} | {key: key for key in PLAIN}
    quoted_words = []
    for word in words:
        key, equals, text = word.lstrip("+").partition("=")
        if equals and key in places and (key in asked or text != "null"):
            text = text if key in conditions else os.path.expanduser(text)
            quoted_words.append(f"{places[key]}={quoted(text)}")
        else:
            quoted_words.append(word)
    return quoted_words


def with_film(words: list[str]) -> list[str]:
    """Return show.py's words with the first, FILM, as film=FILM, and its keys as film.KEY=VALUE."""
    if not words or not words[0].isidentifier():
        return words
    file = CONF / "film" / f"{words[0]}.yaml"
    node = yaml.safe_load(file.read_text()) if file.is_file() else {}
    own = {key for key, value in node.items() if "${" not in str(value)}
    more = [f"film.{word}" if word.partition("=")[0] in own else word for word in words[1:]]
    return [f"film={words[0]}", *more]
