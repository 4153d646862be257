"""A command's configuration, composed by Hydra, and what goes wrong in a few lines.

Exit codes: 0 done, 1 the run failed, 2 the command or its configuration was wrong, 128 + n ended by
signal n: 130 by Ctrl-C, 143 by SIGTERM.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm_lightning.run.config.check import settle_paths
from ddpm_lightning.run.config.errors import RunFailed, Stopped, UserError, print_error
from ddpm_lightning.run.config.words import CONF, describe, root_of

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


class JobError(Exception):
    """A job in another process has failed, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def composed_job(config_name: str, words: list[str]) -> Job:
    """Return the job that words make."""
    with ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():  # as it is within a command
            stack.enter_context(initialize_config_dir(version_base="1.3", config_dir=str(CONF)))
        cfg = _composed(config_name, words)
    configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
    task = [word for word in words if root_of(word) != "hydra"]
    return job_of(cfg, cfg.hydra)._replace(words=task)


def _composed(config_name: str, words: list[str]) -> DictConfig:
    """Return the configuration with Hydra's node.

    Words that do not fit today's defaults may fit the run that goes on.
    """
    try:
        return compose(config_name, words, return_hydra_config=True)
    except HydraException:
        own = [word for word in words if root_of(word) in NOT_OF_THE_RUN]
        cfg = compose(config_name, own, return_hydra_config=True)
        if cfg.get("ckpt_path") is None:
            raise
        return cfg


def job_of(cfg: DictConfig, own: DictConfig | HydraConf) -> Job:
    """Return the job of a configuration.

    Args:
        own: Hydra's node.
    """
    OmegaConf.set_struct(cfg, False)
    for key in ("sweep", "hydra"):
        cfg.pop(key, None)
    OmegaConf.set_struct(cfg, True)
    settle_paths(cfg)
    given = cast(list[str], OmegaConf.to_container(own.overrides.task, resolve=False))  # with ${..}
    words = [word for word in given if root_of(word) != "sweep"]
    return Job(cfg, words, dict(own.runtime.choices))


def attempt(part: Callable[[], object]) -> int:
    """Do it and return the exit code; what went wrong stands on stderr, the cause last."""
    try:
        part()
    except JobError as e:
        return e.code
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError, RunFailed) as e:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":  # set by hand, it asks for whole tracebacks
            raise
        print_error(describe(e), is_effect=isinstance(e.__cause__, ConnectionAbortedError))
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
    """Set an environment variable for a while; None takes it away."""
    before = os.environ.pop(name, None)
    try:
        if value is not None:
            os.environ[name] = value
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
