"""The words of a command line: what is wrong with them, and what is near in conf/."""

import math
import os
import re
import shlex
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path

import yaml
from hydra.core.override_parser.types import RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from ddpm_lightning.run.config.check import PATHS
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.hydra_inside import parse_flags
from ddpm_lightning.run.config.paste import hydra_word, read
from ddpm_lightning.run.config.secrets import find_leaves

OmegaConf.register_new_resolver("product", lambda *factors: math.prod(factors), replace=True)

CONF = Path(__file__).parents[3] / "conf"
OPTIONAL_GROUPS = ("experiment", "debug")  # null means none of them
_REMOVED = {  # keys of a command, and what they are now
    "config": {
        "sweep.executor": "hydra/launcher: joblib, submitit_local or submitit_slurm",
        "sweep.slurm": "hydra.launcher, with hydra/launcher=submitit_slurm",
    },
    "evaluate": {
        "num_draws": "measure.trained_loss.num_draws",
        "num_clips": "measure.bits.num_clips, with measure=bits",
        "likelihood": "measure=bits; likelihood@measure.bits.bound=pair takes another bound",
        "likelihood/solver": "likelihood/solver@measure.bits.flow.solver, with measure=bits",
        "likelihood/probe": "likelihood/probe@measure.bits.flow.probe, with measure=bits",
        "data.batch_size": "batch_size",
    },
}
# Lines of Hydra's messages that help nobody.
_NO_NEWS = ("To append", "full_key:", "object_type=", "Config search path:", "provider=")


def refuse_mistakes(config_name: str, words: list[str]) -> None:
    """Raise UserError for words that Hydra would take, or answer at length."""
    try:
        overrides = parse_flags(words)
    except ValueError as error:
        raise UserError(
            f"{error}; values are KEY=VALUE without dashes, before or after all flags; flags are "
            "-m, --help, --cfg job, --info"
        ) from None
    has_flags = len(overrides) < len(words)  # --config-dir brings groups of its own
    for word in overrides:
        _refuse_mistake(config_name, word, has_flags)


def _refuse_mistake(config_name: str, word: str, has_flags: bool) -> None:
    """Raise UserError with what is wrong with a word KEY=VALUE, and what to type."""
    full_key, is_given, value = word.partition("=")
    key, root = full_key.lstrip("+~"), root_of(word)
    if not is_given and not word.startswith("~"):
        raise UserError(f"{word} has no value: give KEY=VALUE, in one word")
    if is_given and not value:
        raise UserError(
            f"{word} is empty; is a variable of the shell not set? {word}null is none, "
            f"'{word}\"\"' an empty text"
        )
    for old, new in _REMOVED.get(config_name, {}).items():
        if key == old or key.startswith(f"{old}."):
            raise UserError(f"{word}: {old} is now {new}")
    read_value = read(word)
    if isinstance(read_value, HydraException) and value != "???":
        quoted = shlex.quote(hydra_word(full_key, value))
        raise UserError(f"{word}: Hydra does not read it; quote it: {quoted}")
    if isinstance(read_value, RangeSweep) and not list(read_value.range()):
        raise UserError(f"{word} has no values, so there would be no job")
    if value == "null" and key not in OPTIONAL_GROUPS and (CONF / key).is_dir():
        raise UserError(
            f"{word}: the group {key} needs an option; choose {', '.join(options(key))}"
        )
    if word.startswith("+") and not has_flags and root not in (known := _known(config_name)):
        near = get_close_matches(root, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{word}: nothing is called {root}{hint}")


def _known(config_name: str) -> list[str]:
    """Return what a key can begin with: groups, and the keys of the main file."""
    own = yaml.safe_load((CONF / f"{config_name}.yaml").read_text()).keys()
    return sorted({folder.name for folder in CONF.iterdir() if folder.is_dir()} | own)


def options(group: str) -> list[str]:
    """Return the names of the files of a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def with_home(word: str) -> str:
    """Return KEY=~/.. with the home directory in the place of ~, which shells leave there."""
    key, _, value = word.partition("=")
    is_home = value.startswith("~") and "," not in value
    return hydra_word(key, os.path.expanduser(value)) if is_home else word


def path_words(words: list[str]) -> list[str]:
    """Return those that give paths: what resumes their run has to be given them, too."""
    return [word for word in words if word.partition("=")[0].rpartition(".")[2] in PATHS]


def root_of(word: str) -> str:
    """Return the first part of the key."""
    return re.split(r"[./@=]", word.lstrip("+~"))[0]


def describe(error: BaseException) -> str:
    """Return at most five lines: the message, its cause where Hydra hides it, and what is near."""
    message = str(error)
    if isinstance(error, HydraException) and error.__cause__ is not None:
        cause = str(error.__cause__).split("\n")[0]
        if cause and cause not in message:
            message = f"{message}\n{cause}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_NO_NEWS)]
    if found := re.search("Could not (?:find|load) '(.+)/(.+?)'", message):
        group, name = found.groups()
        listed = re.findall(r"^\t(\w+)$", message, re.MULTILINE)  # by Hydra, not of all groups
        names = listed or options(group)
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {group}={near[0]}?" if near else f"choose {', '.join(names)}"
        lines = [lines[0], hint]
    elif found := re.match("Could not override '([^'@]+)'", message):
        near = get_close_matches(found[1], _keys(), n=1, cutoff=0.7)
        lines += [f"did you mean {key}?" for key in near if not found[1].startswith(key)]
    return "\n".join(lines[:5])


def _keys() -> set[str]:
    """Return the keys in the files of conf/."""
    keys: set[str] = set()
    for file in CONF.rglob("*.yaml"):
        group = ".".join(file.parent.relative_to(CONF).parts)
        for key, _ in find_leaves(yaml.safe_load(file.read_text()), group):
            keys.update(accumulate(key.split("."), "{}.{}".format))
    return keys
