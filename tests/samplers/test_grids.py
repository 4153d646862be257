"""Laws of the grids in conf/sampler/grid.

A grid sees an axis alone; axes of every process are tested in tests/processes/test_axis.py.
"""

from math import log

import pytest
import torch
from torch import Tensor

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.axis import MIN_FALL, TimeAxis
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.grids.base import INFORMATIVE, Grid
from tests.problems import (
    CONTINUOUS,
    FLOOR,
    build,
    every_example,
    every_noise,
    options,
    process_under,
)
from tests.samplers.shared import example_chains

GRIDS: dict[str, Grid] = {name: build("sampler/grid", name) for name in options("sampler/grid")}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def usable(axis: TimeAxis) -> Tensor:
    """All usable steps of a chain: its longest grid."""
    return GRIDS["uniform_t"].times(axis, int(axis.num_steps)).flip(0)[1:]


@every_noise
def test_pairs_of_the_median_chain_stop_before_every_step_that_adds_noise(noise: str) -> None:
    """The log-SNR of a pair never rises, and stays where a step adds no noise."""
    process = process_under(MedianProcess, noise)
    steps = usable(process.state_axis(FLOOR))
    assert (process.state_axis(FLOOR).log_snr(steps).diff() <= -MIN_FALL).all()
    noisy = (process.schedule.betas() > 1e-6).nonzero().flatten() + 1
    within = noisy[(noisy > steps[0]) & (noisy <= steps[-1])]
    assert torch.isin(within - 1, steps).all()


def test_times_of_equal_log_snr_are_refused() -> None:
    axis = process_under(VariancePreservingProcess, "linear").axis(FLOOR)
    with pytest.raises(ValueError, match="log-SNR does not fall") as error:
        axis.select(torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@every_grid
@every_example
def test_grid_falls_to_data_while_log_snr_rises(
    grid: Grid, process_type: type[GaussianProcess], noise: str
) -> None:
    for num_steps in (1, 2, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        axis = process.axis(FLOOR)
        available = 50 if process_type in CONTINUOUS else int(axis.num_steps)
        for num_intervals in {1, 2, 7, available}:
            if num_intervals > available:
                continue
            times = grid.times(axis, num_intervals)
            assert len(times) == num_intervals + 1
            assert (times.diff() < 0).all()
            assert (axis.log_snr(times[:-1]).diff() > 0).all()
            assert (process.log_snr(times[:-1]).diff() > 0).all()
            assert times[-1] == 0
            assert float(times[0]) == pytest.approx(axis.last, rel=1e-9)
            assert times.is_floating_point() == (process_type in CONTINUOUS)


@every_grid
@example_chains
def test_longest_grid_walks_every_usable_step(
    grid: Grid, process_type: type[GaussianProcess], noise: str
) -> None:
    """And a longer one is refused, in one line that says what there is."""
    axis = process_under(process_type, noise).axis(FLOOR)
    available = int(axis.num_steps)
    assert torch.equal(grid.times(axis, available).flip(0)[1:], usable(axis))
    with pytest.raises(ValueError, match=f"more than the {available} steps") as error:
        grid.times(axis, available + 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("process_type", [StandardProcess, MedianProcess])
@every_grid
def test_times_of_a_chain_are_the_usable_steps_closest_to_those_wanted(
    grid: Grid, process_type: type[GaussianProcess]
) -> None:
    """Where the grid is coarse enough not to ask for one step twice. The first is at the floor."""
    axis = process_under(process_type, "hybrid").axis(FLOOR)
    wanted = grid.wanted(axis, 5)
    wanted[-1] = axis.last
    steps = usable(axis)
    closest = (steps[:, None] - wanted).abs().min(0).values
    chosen = grid.times(axis, 5).flip(0)[1:]
    assert torch.equal((chosen - wanted).abs(), closest)


@pytest.mark.parametrize("num_values", [1, 3 * 16 * 64 * 64])
@every_grid
def test_a_lower_floor_costs_no_calls(grid: Grid, num_values: int) -> None:
    """All but the first time lie above log-SNR -3 - log d. Cosine noise falls to -75."""
    floor = log_snr_floor((1, num_values))
    process = process_under(VariancePreservingProcess, "cosine")
    level = process.log_snr(grid.times(process.axis(floor), 10)[:-1])
    assert float(level[0]) == pytest.approx(floor, abs=1e-6)
    assert floor + INFORMATIVE == pytest.approx(-3 - log(num_values))
    assert (level[1:] > floor + INFORMATIVE).all()


@every_noise
def test_uniform_t_strides_evenly(noise: str) -> None:
    process = process_under(VariancePreservingProcess, noise)
    strides = GRIDS["uniform_t"].times(process.axis(FLOOR), 37)[1:].diff()
    torch.testing.assert_close(strides, strides[0].expand(36), rtol=1e-9, atol=0)


@every_noise
def test_quadratic_strides_evenly_in_the_root_of_t(noise: str) -> None:
    process = process_under(VariancePreservingProcess, noise)
    strides = GRIDS["quadratic"].times(process.axis(FLOOR), 37)[1:].sqrt().diff()
    torch.testing.assert_close(strides, strides[0].expand(36), rtol=1e-9, atol=0)


@every_noise
def test_uniform_log_snr_strides_evenly_to_the_cleanest_time(noise: str) -> None:
    process = process_under(VariancePreservingProcess, noise)
    times = GRIDS["uniform_log_snr"].times(process.axis(FLOOR), 37)[1:-1]
    strides = process.log_snr(times).diff()
    torch.testing.assert_close(strides, strides[0].expand(35), rtol=1e-6, atol=0)
    assert float(times[-1]) == pytest.approx(process.axis(FLOOR).first)


@every_noise
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_strides_evenly_in_a_root_of_the_noise_level(rho: float, noise: str) -> None:
    process = process_under(VariancePreservingProcess, noise)
    times = build("sampler/grid", "karras", rho=rho).times(process.axis(FLOOR), 37)[1:-1]
    strides = (-process.log_snr(times) / (2 * rho)).exp().diff()
    torch.testing.assert_close(strides, strides[0].expand(35), rtol=1e-6, atol=0)
    assert float(times[-1]) == pytest.approx(process.axis(FLOOR).first)


@pytest.mark.parametrize("rho", [0.0, -7.0])
def test_karras_refuses_a_root_that_is_not_positive(rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be positive, got"):
        build("sampler/grid", "karras", rho=rho)
