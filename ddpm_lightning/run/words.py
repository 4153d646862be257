"""The words of a command line: what is wrong with them, and what is near in conf/."""

import math
import os
import re
import shlex
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from ddpm_lightning.run.config import PATHS
from ddpm_lightning.run.errors import UserError
from ddpm_lightning.run.paste import hydra_word, read

OmegaConf.register_new_resolver("product", lambda *factors: math.prod(factors), replace=True)

CONF = Path(__file__).parents[2] / "conf"
OPTIONAL_GROUPS = ("experiment", "debug")  # null means none of them
# The last parts of keys that take text.
_TEXTS = {*PATHS, "run_name", "run_id", "run_group", "name", "project", "device"}
_REMOVED = {  # keys of any command, and of one, and what they are now
    "": {
        "model.data_std": "measured on the training clips",
        "model.denoiser.data_std": "measured on the training clips",
        "model.process": "model.denoiser.process",
        "network.outputs": "network.out_channels, a number of channels of its own",
    },
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
_NO_NEWS = ("full_key:", "object_type=", "Config search path:", "provider=")  # of Hydra's messages
_USUAL_FLAGS = "flags are -m, --help, --cfg job, --info"


def refuse_mistakes(config_name: str, words: list[str]) -> None:
    """Raise UserError for words that Hydra would take, or answer at length."""
    parser = get_args_parser()
    parser.error = _refuse_flags  # type: ignore[method-assign]
    flags = [word for word in words if word.startswith("-")]
    for word in flags:
        if not any(
            known.startswith(word.partition("=")[0]) for known in parser._option_string_actions
        ):
            _refuse_dashes(config_name, word)
    for word in parser.parse_args(words).overrides:
        _refuse_blank(word)
        _refuse_removed(config_name, word)
        _refuse_unquoted(word)
        _refuse_null_group(word)
        if not flags:  # --config-dir brings groups of its own
            _refuse_unknown_key(config_name, word)


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


def _refuse_removed(config_name: str, word: str) -> None:
    """Raise UserError for a key that has another name now."""
    key = word.lstrip("+~").partition("=")[0]
    for old, new in (_REMOVED[""] | _REMOVED.get(config_name, {})).items():
        if key == old or key.startswith(f"{old}."):
            raise UserError(f"{word}: {old} is now {new}")


def _refuse_null_group(word: str) -> None:
    """Raise UserError for GROUP=null, which Hydra would answer with a stack of frames."""
    group, _, option = word.lstrip("+").partition("=")
    if option == "null" and group not in OPTIONAL_GROUPS and (CONF / group).is_dir():
        names = ", ".join(options(group))
        raise UserError(f"{word}: the group {group} needs an option; choose {names}")


def _refuse_dashes(config_name: str, word: str) -> NoReturn:
    """Raise UserError for --KEY=VALUE, which Hydra answers with a page about its flags."""
    bare = word.lstrip("-")
    near = get_close_matches(root := root_of(bare), _known(config_name), n=1)
    option = bare.replace(root, near[0], 1) if near else "KEY"
    option += "" if "=" in option else "=VALUE"
    raise UserError(f"{word}: a value is given without dashes, {option}; {_USUAL_FLAGS}")


def _refuse_flags(message: str) -> NoReturn:
    """Raise UserError for an unknown flag, in place of a page about all of them."""
    raise UserError(f"{message}; values are KEY=VALUE, before or after all flags; {_USUAL_FLAGS}")


def _refuse_blank(word: str) -> None:
    """Raise UserError for KEY VALUE, and KEY = VALUE."""
    _, is_given, value = word.partition("=")
    if not is_given and not word.startswith("~"):
        raise UserError(f"{word} has no value: give KEY=VALUE, in one word")
    if is_given and not value:
        raise UserError(
            f"{word} is empty; is a variable of the shell not set? {word}null is none, "
            f"'{word}\"\"' an empty text"
        )


def _refuse_unquoted(word: str) -> None:
    """Raise UserError, with the word that Hydra reads, for a text that it does not read as one."""
    key, _, value = word.partition("=")
    is_text = key.lstrip("+").rpartition(".")[2] in _TEXTS
    if value == "???" or (not is_text and re.fullmatch(r"[\w./,:+-]*", value, re.ASCII)):
        return
    found = read(word)
    quoted = f"quote it: {shlex.quote(hydra_word(key, value))}"
    if isinstance(found, HydraException):
        raise UserError(f"{word}: Hydra does not read it; {quoted}")
    if is_text and isinstance(found, int | float | bool | dict):
        raise UserError(f"{word}: Hydra reads {found}, which is no text; {quoted}")
    if isinstance(found, RangeSweep) and not list(found.range()):
        raise UserError(f"{word} has no values, so there would be no job")


def _refuse_unknown_key(config_name: str, word: str) -> None:
    """Raise UserError for +KEY=VALUE whose first part nothing reads: most likely misspelt."""
    root = root_of(word)
    if word.startswith("+") and root not in (known := _known(config_name)):
        near = get_close_matches(root, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{word}: nothing is called {root}{hint}")


def _known(config_name: str) -> list[str]:
    """Return what a key can begin with: groups, and the keys of the main file."""
    known = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    known |= yaml.safe_load((CONF / f"{config_name}.yaml").read_text()).keys()
    return sorted(known - {"defaults"})


def describe(error: BaseException) -> str:
    """Return at most five lines: the message, its cause where Hydra hides it, and what is near."""
    message = str(error)
    if isinstance(error, HydraException) and error.__cause__ is not None:
        cause = str(error.__cause__).split("\n")[0]
        if cause and cause not in message:
            message = f"{message}\n{cause}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_NO_NEWS)]
    hints = _near_options(message) or _near_keys(message)
    if hints:  # instead of a list that would be cut, and of advice to add a misspelt key
        lines = list(takewhile(lambda line: not line.startswith("Available"), lines))
        lines = [line for line in lines if not line.startswith("To append")]
    return "\n".join([*lines[:4], *hints])


def _near_options(message: str) -> list[str]:
    """Return what to choose, for Hydra's complaint about an option that a group does not have."""
    found = re.search("Could not (find|load) '([^']+)/([^']+)'", message)
    if not found:
        return []
    _, group, name = found.groups()
    if group == "hydra/launcher":
        return ["joblib, submitit_local, submitit_slurm: pip install 'ddpm_lightning[launchers]'"]
    names = options(group)
    near = get_close_matches(name, names, n=1)
    if near:
        return [f"did you mean {group}={near[0]}?"]
    return [f"choose {', '.join(names)}"] if names else []


def _near_keys(message: str) -> list[str]:
    """Return what to choose, for Hydra's complaint about a key, by the files in conf/."""
    given = next(iter(message.split("'")[1:]), "")
    if "Could not override" not in message:
        return []
    *path, name = given.split(".")
    keys = _keys(path)
    if owners := [option for option, names in keys.items() if path and name in names]:
        return [f"it is a key of {path[0]}={' or '.join(owners)}; add one"]
    names = set().union(*keys.values())
    names |= set() if path else {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    near = get_close_matches(name, sorted(names - {name}))
    found = [".".join([*path, key]) for key in near] or _same_keys(name)
    return [f"did you mean {', '.join(found)}?"] if found else []


def _keys(path: list[str]) -> dict[str, set[str]]:
    """Return the keys that each option of a group, or main file, has at a path."""
    folder, inner = CONF, path
    if path and (CONF / path[0]).is_dir():
        folder, inner = CONF / path[0], path[1:]
    pattern = "*.yaml"
    if path[:1] == ["measure"] and inner:  # of which several are chosen, by their names
        pattern, inner = f"{inner[0]}.yaml", inner[1:]
    keys = {}
    for file in sorted(folder.glob(pattern)):
        node = yaml.safe_load(file.read_text())
        for key in inner:
            node = node.get(key) if isinstance(node, dict) else None
        names = map(str, node) if isinstance(node, dict) else ()
        keys[file.stem] = set(names) - {"defaults", "_target_"}
    return keys


def _same_keys(name: str) -> list[str]:
    """Return the keys of this name in other groups."""
    files = (file for file in CONF.glob("*/*.yaml") if f"\n{name}:" in file.read_text())
    return sorted({f"{file.parent.name}.{name}" for file in files})
