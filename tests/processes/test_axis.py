"""Where a walk may stop: laws of the usable times of every process."""

from itertools import product

import pytest
import torch

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.axis import MIN_FALL, DiscreteAxis
from ddpm_lightning.processes.base import GaussianProcess
from tests.problems import (
    FLOOR,
    Betas,
    every_case,
    every_chain,
    every_noise,
    process_under,
)

LENGTHS = [1, 2, 3, 1000]


@every_noise
@every_chain
def test_usable_steps_are_those_cleaner_than_every_later_informative_one(
    process_type: type[GaussianProcess], noise: str
) -> None:
    for num_steps in LENGTHS:
        process = process_under(process_type, noise, num_steps)
        axis = process.axis(FLOOR)
        log_snr = process.log_snr(torch.arange(num_steps + 1)).tolist()
        end = next((t for t in range(num_steps + 1) if log_snr[t] <= FLOOR), num_steps)
        usable: list[int] = []
        lowest, least = float("inf"), min(log_snr[: end + 1])
        for t in range(end, 0, -1):  # from the noisiest back to data
            if not usable:
                if log_snr[t] > least + MIN_FALL:
                    continue
                usable, lowest = [t], log_snr[t]
            elif lowest + MIN_FALL < log_snr[t] < float("inf"):
                usable.append(t)
            lowest = max(lowest, log_snr[t])
        assert isinstance(axis, DiscreteAxis)
        assert axis.steps.tolist() == usable[::-1]
        assert (axis.first, axis.last, axis.num_steps) == (usable[-1], usable[0], len(usable))


@every_case
def test_levels_and_times_are_each_others_inverse(
    process_type: type[GaussianProcess], noise: str
) -> None:
    fraction = torch.linspace(0.001, 0.999, 40, dtype=torch.float64)
    for num_steps in (1, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        axis = process.axis(FLOOR)
        usable = axis.at_log_snr(process.log_snr(process.informative_time(fraction, FLOOR)))
        assert ((usable > 0) & (usable <= axis.last)).all()
        again = axis.at_log_snr(axis.log_snr(usable))
        # Exact on a chain; where log-SNR hardly falls, 1e-14 of it is 1e-9 of a time.
        torch.testing.assert_close(again, usable, rtol=1e-9, atol=1e-9)


@every_noise
@every_chain
def test_the_usable_step_closest_in_log_snr_is_found(
    process_type: type[GaussianProcess], noise: str
) -> None:
    axis = process_under(process_type, noise, 50).axis(FLOOR)
    assert isinstance(axis, DiscreteAxis)
    levels = axis.log_snr(axis.steps)
    wanted = torch.linspace(float(levels.max()) + 2, float(levels.min()) - 2, 300).double()
    found = axis.log_snr(axis.at_log_snr(wanted))
    closest = (levels - wanted[:, None]).abs().min(1).values
    torch.testing.assert_close((found - wanted).abs(), closest, rtol=1e-12, atol=1e-12)


@every_noise
@every_chain
def test_before_leads_through_every_usable_step_to_data(
    process_type: type[GaussianProcess], noise: str
) -> None:
    for num_steps in LENGTHS:
        axis = process_under(process_type, noise, num_steps).axis(FLOOR)
        assert isinstance(axis, DiscreteAxis)
        neighbours = torch.cat([torch.zeros(1).long(), axis.steps[:-1]])
        assert torch.equal(axis.before(axis.steps), neighbours)


@every_case
def test_before_comes_to_data_in_as_many_steps_as_the_axis_has(
    process_type: type[GaussianProcess], noise: str
) -> None:
    axis = process_under(process_type, noise, 50).axis(FLOOR)
    t, count = torch.tensor([axis.last], dtype=torch.float64), 0
    while t > 0:
        s = axis.before(t)
        assert ((s >= 0) & (s < t)).all()
        t, count = s, count + 1
    assert t == 0
    assert count - 1 < axis.num_steps + 1e-9 <= count + 1e-6


@every_case
def test_select_finds_as_many_distinct_times_as_wanted(
    process_type: type[GaussianProcess], noise: str
) -> None:
    for num_steps, count in product(LENGTHS, (1, 2, 7, 50, 1000)):
        axis = process_under(process_type, noise, num_steps).axis(FLOOR)
        if count > axis.num_steps:
            continue
        for power in (0.3, 1.0, 3.0):
            ramp = torch.arange(1, count + 1, dtype=torch.float64) / count
            chosen = axis.select(axis.last * ramp**power)
            assert len(chosen) == count
            assert (chosen.diff() > 0).all()
            assert (axis.log_snr(chosen).diff() < 0).all()
            assert count == 1 or chosen[-1] == axis.last
            assert ((chosen > 0) & (chosen <= axis.last)).all()


@every_noise
@every_chain
def test_select_takes_every_usable_step_when_all_are_wanted_and_refuses_more(
    process_type: type[GaussianProcess], noise: str
) -> None:
    axis = process_under(process_type, noise, 50).axis(FLOOR)
    assert isinstance(axis, DiscreteAxis)
    count = len(axis.steps)
    assert torch.equal(axis.select(torch.full((count,), 25.0)), axis.steps)
    with pytest.raises(ValueError, match=f"{count + 1} intervals are more than the {count} steps"):
        axis.select(torch.linspace(1, 50, count + 1))


@every_chain
@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_every_informative_step_of_a_monotone_chain_is_usable(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise)
    log_snr, axis = process.log_snr(torch.arange(1001)), process.axis(FLOOR)
    last = int((log_snr > FLOOR).sum().clamp(max=1000))
    assert isinstance(axis, DiscreteAxis)
    assert torch.equal(axis.steps, torch.arange(1, last + 1))


@every_chain
def test_a_schedule_without_noise_cannot_be_walked(
    process_type: type[AutoregressiveProcess],
) -> None:
    for num_steps in (1, 5):
        process = process_type(Betas([0.0] * num_steps))
        for axis in (process.axis, process.state_axis):
            with pytest.raises(ValueError, match="adds no noise at any step"):
                axis(FLOOR)
