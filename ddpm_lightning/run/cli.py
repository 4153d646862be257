"""Composes a command's configuration under Hydra and turns what goes wrong into a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 128 + n ended by
signal n: 130 by Ctrl-C, 143 by SIGTERM.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, cast

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm_lightning.run.config import Node, check_options, resolved
from ddpm_lightning.run.errors import RunFailed, Stopped, UserError, tell_error
from ddpm_lightning.run.expand import expanded
from ddpm_lightning.run.threads import yield_cores

CONF = Path(__file__).parents[2] / "conf"
SWEEP_WORDS = "sweep."  # how to run a sweep, not what
OPTIONAL_GROUPS = ("experiment", "debug")  # null means none of them
# Keys that say which run goes on and where, not what is trained.
NOT_OF_THE_RUN = ("resume", "ckpt_path", "outputs_dir", "sweep", "hydra")


class Job(NamedTuple):
    """One composed configuration.

    words: of the command line that made it.
    choices: the option of each group.
    """

    cfg: DictConfig
    words: list[str]
    choices: dict[str, str | None]


class Sweep(NamedTuple):
    """Several jobs.

    words: of the command line, as given, but for those that only say how to run it.
    options: the node `sweep` of the configuration.
    """

    jobs: list[Job]
    words: list[str]
    options: Node


class JobError(Exception):
    """A job in another process has failed, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Composes conf/{config_name}.yaml with the command line and hands it to task, once per job.

    The jobs of a sweep run where its launcher puts them: one after another, or in other processes
    and on other machines.
    """
    yield_cores()
    codes: list[int] = []
    job = partial(_one_job, task, os.environ.get("HYDRA_FULL_ERROR"), os.getpid(), codes)
    code = attempt(partial(_under_hydra, job, config_name))
    if code := max([code, *codes]):
        sys.exit(code)


def _one_job(
    task: Callable[[DictConfig], None],
    full_error: str | None,
    main_process: int,
    codes: list[int],
    cfg: DictConfig,
) -> None:
    with environment("HYDRA_FULL_ERROR", full_error):  # what the job starts inherits it
        code = attempt(partial(task, cfg))
    codes.append(code)
    if code and os.getpid() != main_process:
        raise JobError(code)  # which the launcher brings back


def _under_hydra(job: Callable[[DictConfig], None], config_name: str) -> None:
    refuse_null_groups(sys.argv[1:])
    with environment("HYDRA_FULL_ERROR", "1"):  # raise instead of printing summaries of its own
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()


def run_jobs(task: Callable[[Job], None], sweep: Callable[[Sweep], None], config_name: str) -> None:
    """The same for a task that asks for more than the configuration, and runs its own sweeps."""
    yield_cores()
    words = sys.argv[1:]
    flags = {word for word in words if word.startswith("-")}
    if flags and flags <= {"-m", "--multirun"}:
        words = [word for word in words if word not in flags]
        code = attempt(lambda: sweep(composed_sweep(config_name, words)))
    else:
        code = attempt(lambda: task(composed(config_name)))
    if code:
        sys.exit(code)


def composed(config_name: str) -> Job:
    """The job that the command line asks for. Does not return from --help and the like."""
    words = sys.argv[1:]
    for word in words:
        if word.startswith(SWEEP_WORDS):
            raise UserError(f"{word} is about sweeps; add -m")
    jobs: list[Job] = []

    def collect(cfg: DictConfig) -> None:
        jobs.append(_job(cfg, HydraConfig.get()))

    if any(word.startswith("-") for word in words):
        _under_hydra(collect, config_name)
    else:  # the same in half the time: Hydra's main composes twice
        refuse_null_groups(words)
        refuse_unknown_keys(config_name, words)
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = _composed(config_name, words)
        configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
        task = [word for word in words if _root(word) != "hydra"]
        jobs.append(_job(cfg, cfg.hydra)._replace(words=task))
    if len(jobs) > 1:
        raise UserError("-m goes with no other flag; leave it, or them, out")
    if not jobs:
        sys.exit(0)
    return jobs[0]


def _composed(config_name: str, words: list[str]) -> DictConfig:
    """With Hydra's node. Words that do not fit today's defaults may fit the run that goes on."""
    try:
        return compose(config_name, words, return_hydra_config=True)
    except HydraException:
        own = [word for word in words if _root(word) in NOT_OF_THE_RUN]
        cfg = compose(config_name, own, return_hydra_config=True)
        if cfg.get("ckpt_path") is None:
            raise
        return cfg


def _root(word: str) -> str:
    """The first part of the key."""
    return re.split(r"[./@=]", word.lstrip("+~"))[0]


def composed_sweep(config_name: str, words: list[str]) -> Sweep:
    """All jobs, so that a mistake in the last of them is found before the first one starts."""
    refuse_null_groups(words)
    refuse_unknown_keys(config_name, words)
    for word in words:
        if word.startswith(("hydra/launcher", "hydra/sweeper")):
            raise UserError(f"{word}: this command runs its jobs itself; see sweep.executor")
        if _root(word) in ("resume", "ckpt_path"):
            raise UserError(
                f"{word}: -m begins new runs; the same sweep's command again goes on with its jobs"
            )
    how = [word for word in words if word.startswith(SWEEP_WORDS)]
    made_by = [word for word in words if word not in how]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        options = resolved(compose(config_name, overrides=how))["sweep"]
        check_options("sweep", options)
        loader = GlobalHydra.instance().config_loader()
        jobs = []
        for job in expanded(made_by, loader, options["num_random"], options["seed"]):
            cfg = compose(config_name, overrides=job, return_hydra_config=True)
            jobs.append(_job(cfg, cfg.hydra))
    return Sweep(jobs, made_by, options)


def _job(cfg: DictConfig, own: DictConfig | HydraConf) -> Job:
    """Args: own: Hydra's node."""
    OmegaConf.set_struct(cfg, False)
    for key in ("sweep", "hydra"):
        cfg.pop(key, None)
    OmegaConf.set_struct(cfg, True)
    words = OmegaConf.to_container(own.overrides.task, resolve=False)  # ${..} as given
    return Job(cfg, cast(list[str], words), dict(own.runtime.choices))


def attempt(part: Callable[[], None]) -> int:
    """Does it and returns the exit code; what went wrong is said on stderr, the cause last."""
    try:
        part()
    except JobError as e:
        return e.code
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError, RunFailed) as e:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":  # set by hand, it asks for whole tracebacks
            raise
        tell_error(describe(e))
        return 1 if isinstance(e, RunFailed) else 2
    except Stopped as e:
        print(e, file=sys.stderr)
        return 128 + e.signal_number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """An environment variable with a value, or without one for None, for a while."""
    before = os.environ.pop(name, None)
    try:
        if value is not None:
            os.environ[name] = value
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def refuse_null_groups(words: list[str]) -> None:
    """UserError for GROUP=null, which Hydra would answer with a stack of frames."""
    for word in words:
        group, _, option = word.partition("=")
        folder = CONF / group.strip("+~")
        if "=" not in word or not group or group in OPTIONAL_GROUPS or not folder.is_dir():
            continue
        if option in {"null", ""}:
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise UserError(f"{word}: the group {group} needs an option; choose {names}")


def refuse_unknown_keys(config_name: str, words: list[str]) -> None:
    """UserError for +KEY=VALUE with a first part that nothing reads, most likely misspelt."""
    known = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    known |= yaml.safe_load((CONF / f"{config_name}.yaml").read_text()).keys()
    for word in words:
        if word.startswith("+") and (root := _root(word)) not in known:
            near = get_close_matches(root, sorted(known - {"defaults"}), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{word}: nothing is called {root}{hint}")


def describe(error: BaseException) -> str:
    """At most five lines: the message, its cause where Hydra hides it there, and what is near."""
    message = str(error)
    if isinstance(error, HydraException) and error.__cause__ is not None:
        cause = str(error.__cause__).split("\n")[0]
        if cause and cause not in message:
            message = f"{message}\n{cause}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("full_key:", "object_type="))]
    hints = _near_options(message) or _near_keys(message)
    if hints:  # instead of a list that would be cut, and of advice to add a misspelt key
        lines = list(takewhile(lambda line: not line.startswith("Available"), lines))
        lines = [line for line in lines if not line.startswith("To append")]
    return "\n".join([*lines[:4], *hints])


def _near_options(message: str) -> list[str]:
    """What to choose, for Hydra's complaint about an option that a group does not have."""
    given = next((part for part in message.split("'") if "/" in part), None)
    if "Could not find" not in message or given is None:
        return []
    group, _, name = given.rpartition("/")
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    near = get_close_matches(name, options, n=1)
    if near:
        return [f"did you mean {group}={near[0]}?"]
    return [f"choose {', '.join(options)}"] if options else []


def _near_keys(message: str) -> list[str]:
    """The same for its complaint about a key, by the files in conf/ that could have it."""
    given = next(iter(message.split("'")[1:]), "")
    if "Could not override" not in message:
        return []
    *path, name = given.split(".")
    names = set() if path else {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    is_group = bool(path) and (CONF / path[0]).is_dir()
    for file in (CONF / path[0] if is_group else CONF).glob("*.yaml"):
        node = yaml.safe_load(file.read_text())
        for key in path[is_group:]:
            node = node.get(key) if isinstance(node, dict) else None
        names |= set(map(str, node)) if isinstance(node, dict) else set()
    near = get_close_matches(name, sorted(names - {"defaults", "_target_"}))
    found = [".".join([*path, key]) for key in near] or _same_keys(name)
    return [f"did you mean {', '.join(found)}?"] if found else []


def _same_keys(name: str) -> list[str]:
    """Those of this name in other groups."""
    files = (file for file in CONF.glob("*/*.yaml") if f"\n{name}:" in file.read_text())
    return sorted({f"{file.parent.name}.{name}" for file in files})
