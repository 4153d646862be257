"""What the tests of samplers share: members, data, and exact solutions to compare with."""

import copy
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess, Time
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.thresholding import NoThresholding
from ddpm_lightning.samplers.walk import Draw, Point
from tests.problems import CHAINS, FLOOR, Mixture, build, options

every_sampler = pytest.mark.parametrize("name", options("sampler"))
every_chain = pytest.mark.parametrize("process_type", CHAINS)
# A Markov chain, and one that is neither Markov nor monotone.
example_chains = pytest.mark.parametrize(
    ("process_type", "noise"), [(StandardProcess, "cosine"), (MedianProcess, "hybrid")]
)


def member(
    name: str, *, num_evaluations: int = 50, grid: str | None = None, **overrides: Any
) -> Sampler:
    """A member of conf/sampler, as `build` makes it, but on another grid where one is named; a
    copy, because composing takes a while.
    """
    sampler = copy.copy(_built("sampler", name, tuple(overrides.items())))
    sampler.num_evaluations = num_evaluations
    if grid is not None:
        sampler.grid = _built("sampler/grid", grid)
    return sampler


def free(name: str, **options: Any) -> Sampler:
    """The same without thresholding."""
    sampler = member(name, **options)
    sampler.thresholding = NoThresholding()
    return sampler


@cache
def _built(group: str, name: str, overrides: tuple[tuple[str, Any], ...] = ()) -> Any:
    return build(group, name, **dict(overrides))


def sampled(sampler: Sampler, data: Any, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sampler.sample(data, shape, generator=generator)


def noiseless() -> Tensor:
    """A draw for walks that must make none."""
    raise AssertionError("noise was drawn")


def bimodal(process: GaussianProcess) -> Mixture:
    """Two modes that overlap: not Gaussian, and smooth on the scale of a step."""
    return Mixture(process, [0.4, 0.6], [-0.5, 0.4], [0.3, 0.2])


def spread(data: Mixture, t: Time) -> Tensor:
    """(9,) points within two standard deviations of x_t, float64."""
    alpha, sigma, _ = data.process.level(t)
    mean = (data.weights * data.means).sum()
    variance = (data.weights * (data.stds.square() + (data.means - mean).square())).sum()
    std = (alpha.square() * variance + sigma.square()).sqrt()
    return alpha * mean + std * torch.linspace(-2, 2, 9, dtype=torch.float64)


def flow(data: Mixture, x_t: Tensor, t: Time, s: Time) -> Tensor:
    """x_s on the probability-flow ODE's path through x_t (N,): in one dimension paths do not cross,
    so that x_s is the same quantile of its marginal. By bisection to round-off, float64.
    """
    wanted = _distribution(data, x_t, t)
    low, high = torch.full_like(x_t, -20.0), torch.full_like(x_t, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = _distribution(data, middle, s) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def _distribution(data: Mixture, x: Tensor, t: Time) -> Tensor:
    alpha, sigma, _ = data.process.level(t)
    std = ((alpha * data.stds).square() + sigma.square()).sqrt()
    return (data.weights * torch.special.ndtr((x[:, None] - alpha * data.means) / std)).sum(-1)


def exact_law(
    sampler: Sampler, data: Any, times: Tensor, start: Callable[[Draw], Tensor]
) -> tuple[float, float]:
    """Mean and standard deviation of the end of a walk on Gaussian data, without sampling error.

    There every step is affine in x and in the noise. Walk k of a batch has a 1 in its k-th draw and
    nothing else, so that it ends with the coefficient of that draw; the last one has no noise.
    """
    size = 6 * len(times)
    number = count()

    def draw() -> Tensor:
        noise = torch.zeros(size, dtype=torch.float64)
        noise[next(number)] = 1.0
        return noise

    ends = sampler.walk(data, start(draw), times, draw).reshape(-1, size)[0]
    assert next(number) < size
    return float(ends[-1]), float((ends - ends[-1]).square().sum().sqrt())


def exact_samples(sampler: Sampler, data: Any) -> tuple[float, float]:
    """Of the whole walk, from the prior to data."""
    process, times = data.process, sampler.times(data.process, FLOOR)
    start = Point.at(process, times[0])
    return exact_law(sampler, data, times, lambda draw: sampler.start(start, process, draw))
