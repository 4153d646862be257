"""Laws of the grid of steps, for every process, schedule and length of chain."""

import pytest
import torch

from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.samplers.grid import MIN_FALL, decreasing_grid, usable_steps
from tests.problems import PROCESSES, Betas, build, options

every_process = pytest.mark.parametrize("process_type", PROCESSES)
every_noise = pytest.mark.parametrize("noise", options("noise"))
every_length = pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 1000])


@every_length
@every_noise
@every_process
def test_grid_falls_to_data_while_log_snr_rises(
    process_type: type, noise: str, num_steps: int
) -> None:
    process = process_type(build("noise", noise, num_steps=num_steps))
    log_snr = process.log_snr(torch.arange(process.informative_steps() + 1))
    for num_intervals in (1, 2, 7, 50, 5000):
        grid = decreasing_grid(process, num_intervals)
        assert (grid.diff() < 0).all()
        assert (process.log_snr(grid).diff() >= MIN_FALL).all()
        assert grid[-1] == 0
        assert grid[0] <= process.informative_steps()
        assert float(process.log_snr(grid[0])) == pytest.approx(float(log_snr.min()), abs=MIN_FALL)
        assert len(grid) - 1 == min(num_intervals, len(usable_steps(process)))


@every_length
@every_noise
@every_process
def test_longest_grid_walks_every_usable_step(
    process_type: type, noise: str, num_steps: int
) -> None:
    process = process_type(build("noise", noise, num_steps=num_steps))
    grid = decreasing_grid(process, 5000)
    assert torch.equal(grid.flip(0)[1:], usable_steps(process))


@every_length
@every_noise
@every_process
def test_longest_grid_comes_to_data_from_the_cleanest_step(
    process_type: type, noise: str, num_steps: int
) -> None:
    """Where log-SNR rises at single steps, the last interval starts after the rise."""
    process = process_type(build("noise", noise, num_steps=num_steps))
    log_snr = process.log_snr(torch.arange(1, process.informative_steps() + 1))
    last = float(process.log_snr(decreasing_grid(process, 5000)[-2]))
    assert last == pytest.approx(float(log_snr.max()), abs=MIN_FALL)


@every_process
@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_every_informative_step_of_a_monotone_chain_is_usable(
    process_type: type, noise: str
) -> None:
    process = process_type(build("noise", noise))
    assert torch.equal(usable_steps(process), torch.arange(1, process.informative_steps() + 1))


def test_median_hybrid_is_walked_two_steps_at_a_time() -> None:
    process = MedianProcess(build("noise", "hybrid"))
    strides = usable_steps(process).diff()
    assert strides.max() <= 3  # 3 once, where the two curves cross
    assert (strides == 2).sum() >= len(strides) - 2


@every_noise
@every_process
def test_grid_is_evenly_spread_over_the_usable_steps(process_type: type, noise: str) -> None:
    process = process_type(build("noise", noise))
    usable = usable_steps(process)
    position = torch.searchsorted(usable, decreasing_grid(process, 20)[:-1])
    strides = -position.diff()
    assert strides.max() - strides.min() <= 1  # the nearest whole positions


@every_process
@pytest.mark.parametrize("num_steps", [1, 5])
def test_a_schedule_without_noise_cannot_be_sampled(process_type: type, num_steps: int) -> None:
    process = process_type(Betas([0.0] * num_steps))
    with pytest.raises(ValueError, match="adds no noise at any step"):
        decreasing_grid(process, 10)
