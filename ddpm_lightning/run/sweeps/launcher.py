"""hydra/sweeper=jobs, a grid or jobs at random, and hydra/launcher=processes, which train.py takes.

Hydra has plugins in packages of their own; these are registered by what needs them, and import
nothing that is slow.
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper

from ddpm_lightning.files.lock import ProcessLock
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.job import JobError, job_of

MAX_JOBS = 10_000


class Jobs(Sweeper):
    """The whole grid, or jobs drawn at random.

    Args:
        num_random: how many to draw; None for the grid.   seed: of the draw.
    """

    def __init__(self, num_random: int | None, seed: int | None) -> None:
        self._num_random, self._seed = num_random, seed or 0

    def setup(self, **context: Any) -> None:
        self._parser = OverridesParser.create(context["hydra_context"].config_loader)  # of glob(*)
        self._launcher = Plugins.instance().instantiate_launcher(**context)

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs.

        Raises:
            JobError: with the worst exit code.
        """
        jobs = jobs_of(self._parser.parse_overrides(arguments), self._num_random, self._seed)
        code = 0
        for job in self._launcher.launch(jobs, initial_job_idx=0):
            try:
                _ = job.return_value
            except JobError as e:
                code = max(code, e.code)
        if code:
            raise JobError(code)


class Processes(Launcher):
    """Checks all jobs before the first one starts, and runs each in a process on this machine.

    Args:
        max_parallel: at a time.
    """

    def __init__(self, max_parallel: int) -> None:
        self._max_parallel = max_parallel

    def setup(self, **context: Any) -> None:
        self._load = context["hydra_context"].config_loader.load_sweep_config
        self._config = context["config"]

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from ddpm_lightning.run.sweeps.jobs import freeze_jobs, run_frozen

        cfgs = [self._load(self._config, list(words)) for words in job_overrides]
        jobs = [job_of(cfg, cfg.hydra) for cfg in cfgs]
        metric, directory = self._config.sweep.metric, Path(self._config.hydra.sweep.dir)
        frozen = freeze_jobs(jobs, initial_job_idx, directory, metric)
        with user_errors("the sweep's directory"):
            lock = ProcessLock(directory / ".lock")
        try:
            run_frozen(frozen, self._max_parallel, is_shown=self._max_parallel == 1)
        finally:
            lock.release()
        return [
            JobReturn(words, status=JobStatus.COMPLETED, _return_value=job.value(metric))
            if job.is_finished
            else JobReturn(words, status=JobStatus.FAILED, _return_value=JobError(1))
            for words, job in zip(job_overrides, frozen, strict=True)
        ]


def register() -> None:
    """Have Hydra know both, and the words for them."""
    draw = {"num_random": "${oc.select:sweep.num_random}", "seed": "${oc.select:sweep.seed}"}
    at_once = {"max_parallel": "${sweep.max_parallel}"}
    for group, plugin, arguments in (("sweeper", Jobs, draw), ("launcher", Processes, at_once)):
        name = f"hydra_plugins.{plugin.__name__}"  # Hydra's register() takes no other package
        Plugins.instance().class_name_to_class[name] = plugin
        node = {"_target_": name, **arguments}
        ConfigStore.instance().store(plugin.__name__.lower(), node, f"hydra/{group}")


def jobs_of(overrides: list[Override], num_random: int | None, seed: int) -> list[list[str]]:
    """Return the words of each job.

    Args:
        overrides: KEY=a,b  choice(a,b)  range(0,9)  glob(*)  interval(0,1), or without a choice.
        num_random: how many jobs to draw, instead of the whole grid; of a grid no job twice.
    Raises:
        UserError: where that cannot be done.
    """
    generator = random.Random(seed)
    if num_random is not None and any(map(_is_endless, overrides)):
        columns = [_drawn(override, num_random, generator) for override in overrides]
        return [list(words) for words in zip(*columns, strict=True)]
    grid = [list(_listed(override)) for override in overrides]
    shape = [len(values) for values in grid]
    size = math.prod(shape)
    if not size or (size > MAX_JOBS and num_random is None):
        raise UserError(
            f"this sweep has {size:,} jobs, none or more than {MAX_JOBS:,}; draw some of them: "
            "add sweep.num_random=100"
        )
    numbers: Sequence[int] = range(size)
    if num_random is not None:
        numbers = sorted(generator.sample(numbers, min(num_random, size)))
    places = zip(*np.unravel_index(numbers, shape), strict=True)  # the last word changes fastest
    return [[values[i] for values, i in zip(grid, place, strict=True)] for place in places]


def _is_endless(override: Override) -> bool:
    return isinstance(override.value(), IntervalSweep)


def _listed(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield str(override.input_line)
        return
    if _is_endless(override):
        raise UserError(
            f"{override.input_line} has no end of values; say how many jobs to draw: "
            "add sweep.num_random=20"
        )
    for value in override.sweep_string_iterator():
        yield f"{override.get_key_element()}={value}"


def _drawn(override: Override, count: int, generator: random.Random) -> list[str]:
    """Uniform, in the logarithm if it is tagged so; whole between whole ends."""
    if not _is_endless(override):
        return generator.choices(list(_listed(override)), k=count)
    interval: Any = override.value()
    low, high = interval.start, interval.end
    if "log" in interval.tags:
        if low <= 0:
            raise UserError(f"{override.input_line}: a logarithm needs positive ends, got {low:g}")
        ends = math.log(low), math.log(high)
        values = [f"{math.exp(generator.uniform(*ends)):.4g}" for _ in range(count)]
    elif isinstance(low, int) and isinstance(high, int):
        values = [str(generator.randint(low, high)) for _ in range(count)]
    else:
        values = [f"{generator.uniform(low, high):.4g}" for _ in range(count)]
    return [f"{override.get_key_element()}={value}" for value in values]
