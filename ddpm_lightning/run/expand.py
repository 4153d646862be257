"""A sweep's words on the command line -> the words of each of its jobs, as a grid or at random."""

import math
import random
from collections.abc import Iterator

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from ddpm_lightning.run.errors import UserError

MAX_JOBS = 10_000


def expanded(
    words: list[str], loader: ConfigLoader, num_random: int | None, seed: int
) -> list[list[str]]:
    """The words of each job.

    Args:
        words: in Hydra's syntax: KEY=a,b  choice(a,b)  range(0,9)  glob(*)  interval(0,1).
        loader: knows the options of the groups, for glob.
        num_random: how many jobs to draw, instead of the whole grid; of a grid no job twice.
        seed: of the draw.
    Raises UserError where that cannot be done.
    """
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(words)
    if num_random is not None and not all(map(_is_discrete, overrides)):
        generator = random.Random(seed)
        return [[_drawn(override, generator) for override in overrides] for _ in range(num_random)]
    grid = [list(_listed(override)) for override in overrides]
    num_jobs = math.prod(map(len, grid))
    if not num_jobs or (num_jobs > MAX_JOBS and num_random is None):
        raise UserError(
            f"this sweep has {num_jobs:,} jobs, none or more than {MAX_JOBS:,}; draw some of them: "
            "add sweep.num_random=100"
        )
    if num_random is not None:
        drawn = random.Random(seed).sample(range(num_jobs), min(num_random, num_jobs))
        return [_combination(grid, number) for number in sorted(drawn)]
    return [_combination(grid, number) for number in range(num_jobs)]


def _combination(grid: list[list[str]], number: int) -> list[str]:
    """The last word changes fastest."""
    words = []
    for values in reversed(grid):
        number, place = divmod(number, len(values))
        words.append(values[place])
    return words[::-1]


def _is_discrete(override: Override) -> bool:
    return not override.is_sweep_override() or bool(override.is_discrete_sweep())


def _listed(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield str(override.input_line)
        return
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} has no end of values; say how many jobs to draw: "
            "add sweep.num_random=20"
        )
    for value in override.sweep_string_iterator():
        yield f"{override.get_key_element()}={value}"


def _drawn(override: Override, generator: random.Random) -> str:
    if _is_discrete(override):
        return generator.choice(list(_listed(override)))
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    return f"{override.get_key_element()}={_within(override, interval, generator)}"


def _within(override: Override, interval: IntervalSweep, generator: random.Random) -> str:
    """Uniform, in the logarithm if it is tagged so; whole between whole ends."""
    low, high = interval.start, interval.end
    assert low is not None
    assert high is not None
    if "log" in interval.tags:
        if low <= 0:
            raise UserError(f"{override.input_line}: a logarithm needs positive ends, got {low:g}")
        return _short(math.exp(generator.uniform(math.log(low), math.log(high))))
    if isinstance(low, int) and isinstance(high, int):
        return str(generator.randint(low, high))
    return _short(generator.uniform(low, high))


def _short(value: float) -> str:
    return f"{value:.4g}"
