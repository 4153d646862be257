"""The tangent grid on Gaussian data: its closed form, and that no other grid comes closer."""

from math import atan, cos, exp

import pytest
import torch

from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.flow import FlowProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.statistics import DATA_STD
from tests.problems import FLOOR, Gaussian, ScheduledType, build, options, process_under
from tests.samplers.shared import exact_samples, free, noiseless

COUNTS = [2, 5, 10]
OTHERS = [name for name in options("sampler/grid") if name != "tangent"]


def ddim(num_evaluations: int, grid: str) -> Sampler:
    """Euler without churn is the same: see test_equalities.py."""
    return free("ddim", grid=grid, num_evaluations=num_evaluations, eta=0.0)


def share(data: Gaussian, grid: str, num_evaluations: int) -> float:
    """The standard deviation of samples over that of the data: exact, nothing is drawn."""
    return exact_samples(ddim(num_evaluations, grid), data)[1] / data.std


@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
def test_equal_angles_leave_the_power_of_a_cosine(std: float) -> None:
    """cos(phi / n)^n, phi = atan(sigma / (alpha std)) at the start; and the start itself has the
    standard deviation sin(phi) of what it should.
    """
    data = Gaussian(process_under(FlowProcess, "flow"), mean=0.3, std=std)
    last = float(data.process.log_snr(data.process.axis(FLOOR).last))
    for n in (1, *COUNTS):
        sampler = ddim(n, "tangent")
        sampler.grid = build("sampler/grid", "tangent", std=std)
        phi = atan(exp(-last / 2) / std)
        start = (1 + (std * exp(last / 2)) ** 2) ** -0.5
        assert exact_samples(sampler, data)[1] / std == pytest.approx(
            start * cos(phi / n) ** n, rel=1e-7
        )


@pytest.mark.parametrize(
    ("process_type", "noise"), [(FlowProcess, "flow"), (MedianProcess, "linear")]
)
def test_no_other_grid_keeps_more_of_gaussian_data(process_type: ScheduledType, noise: str) -> None:
    """Every walk of first order loses spread, whatever its grid; equal angles lose the least."""
    data = Gaussian(process_under(process_type, noise), mean=0.0, std=DATA_STD)
    for n in COUNTS:
        tangent = share(data, "tangent", n)
        assert max(share(data, grid, n) for grid in OTHERS) < tangent < 1, n


def test_no_other_angles_keep_more_of_gaussian_data() -> None:
    """50 grids at random between the same ends, 5 intervals; seed 0."""
    process = process_under(VariancePreservingProcess, "cosine")
    data = Gaussian(process, mean=0.0, std=DATA_STD)
    best, axis = share(data, "tangent", 5), process.axis(FLOOR)
    generator = torch.Generator().manual_seed(0)
    levels = 22 * torch.rand(50, 4, generator=generator).double().sort().values - 12
    start = process.level(axis.last).sigma[None]
    for inner in axis.at_log_snr(levels):
        times = torch.nn.functional.pad(inner, (0, 1))  # to data
        times = torch.nn.functional.pad(times, (1, 0), value=axis.last)
        end = ddim(5, "tangent").walk(data, start, times, noiseless)
        assert float(end) / DATA_STD < best


def test_tangent_refuses_data_without_spread() -> None:
    with pytest.raises(ValueError, match=r"std must be positive, got 0.0; that of .* is 0.5"):
        build("sampler/grid", "tangent", std=0.0)
