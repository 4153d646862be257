"""The tangent grid on Gaussian data: its closed form, and that no other grid comes closer."""

from math import atan, cos, exp

import pytest
import torch

from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.flow import FlowProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.statistics import DATA_STD
from tests.problems import FLOOR, Gaussian, ScheduledType, build, options, process_under
from tests.samplers.shared import exact_samples, free, noiseless

COUNTS = [2, 5, 10]
OTHERS = [name for name in options("sampler/grid") if name != "tangent"]

first_order = pytest.mark.parametrize(
    ("name", "overrides"), [("ddim", {"eta": 0.0}), ("euler", {"churn": 0.0})]
)
every_path = pytest.mark.parametrize(
    ("process_type", "noise"),
    [
        (VariancePreservingProcess, "cosine"),
        (FlowProcess, "flow"),
        (StandardProcess, "cosine"),
        (MedianProcess, "linear"),
    ],
)


def share(name: str, data: Gaussian, grid: str, num_evaluations: int, **overrides: float) -> float:
    """The standard deviation of samples over that of the data: exact, nothing is drawn."""
    sampler = free(name, f"sampler/grid={grid}", num_evaluations=num_evaluations, **overrides)
    return exact_samples(sampler, data)[1] / data.std


@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
@first_order
def test_equal_angles_leave_the_power_of_a_cosine(
    name: str, overrides: dict[str, float], std: float
) -> None:
    """cos(phi / n)^n, phi = atan(sigma / (alpha std)) at the start; and the start itself has the
    standard deviation sin(phi) of what it should.
    """
    data = Gaussian(process_under(FlowProcess, "flow"), mean=0.3, std=std)
    last = float(data.process.log_snr(data.process.axis(FLOOR).last))
    grid = build("sampler/grid", "tangent", std=std)
    for n in (1, *COUNTS):
        sampler = free(name, num_evaluations=n, **overrides)
        sampler.grid = grid
        phi = atan(exp(-last / 2) / std)
        start = (1 + (std * exp(last / 2)) ** 2) ** -0.5
        assert exact_samples(sampler, data)[1] / std == pytest.approx(
            start * cos(phi / n) ** n, rel=1e-7
        )


@first_order
@every_path
def test_no_other_grid_keeps_more_of_gaussian_data(
    process_type: ScheduledType, noise: str, name: str, overrides: dict[str, float]
) -> None:
    """Every walk of first order loses spread, whatever its grid; equal angles lose the least."""
    data = Gaussian(process_under(process_type, noise), mean=0.0, std=DATA_STD)
    for n in COUNTS:
        tangent = share(name, data, "tangent", n, **overrides)
        others = [share(name, data, grid, n, **overrides) for grid in OTHERS]
        assert max(others) < tangent < 1, n


def test_no_other_angles_keep_more_of_gaussian_data() -> None:
    """100 grids at random between the same ends, 5 intervals; seed 0."""
    process = process_under(VariancePreservingProcess, "cosine")
    data = Gaussian(process, mean=0.0, std=DATA_STD)
    best, axis = share("ddim", data, "tangent", 5), process.axis(FLOOR)
    generator = torch.Generator().manual_seed(0)
    levels = 22 * torch.rand(100, 4, generator=generator).double().sort().values - 12
    start = process.level(axis.last).sigma[None]
    for inner in axis.at_log_snr(levels):
        times = torch.nn.functional.pad(inner, (0, 1))  # to data
        times = torch.nn.functional.pad(times, (1, 0), value=axis.last)
        end = free("ddim").walk(data, start, times, noiseless)
        assert float(end) / DATA_STD < best


def test_tangent_refuses_data_without_spread() -> None:
    with pytest.raises(ValueError, match=r"std must be positive, got 0.0; that of .* is 0.5"):
        build("sampler/grid", "tangent", std=0.0)
