"""Schedules made from others: zero terminal SNR, SNR shift, matched."""

from math import exp, log

import pytest
import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, betas_from_log_snr
from ddpm_lightning.noise.matched import MatchedSchedule
from ddpm_lightning.noise.snr_shift import SNRShiftSchedule
from ddpm_lightning.noise.zero_terminal_snr import ZeroTerminalSNRSchedule
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import PROCESSES, Betas, build, every_example, process_under

INSIDE = ["linear", "cosine", "scaled_linear"]


def log_snr(schedule: NoiseSchedule) -> Tensor:
    """Of the standard chain, t = 1..T."""
    process = StandardProcess(schedule)
    return process.log_snr(torch.arange(1, process.num_steps + 1))


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("num_steps", [3, 50, 1000])
def test_zero_terminal_snr_is_algorithm_1_of_lin_et_al(inside: str, num_steps: int) -> None:
    """Shift by alpha_T, stretch so that alpha_1 stays; only the last step differs, by its clip."""
    schedule = build("noise", inside, num_steps=num_steps)
    betas = ZeroTerminalSNRSchedule(num_steps, schedule).betas()
    alpha = (1 - schedule.betas()).cumprod(0).sqrt()
    first, last = alpha[0].clone(), alpha[-1].clone()
    alpha -= last
    alpha *= first / (first - last)
    abar = alpha.square()
    expected = 1 - torch.cat([abar[:1], abar[1:] / abar[:-1]])
    torch.testing.assert_close(betas[:-1], expected[:-1], rtol=1e-11, atol=1e-14)
    assert expected[-1] == 1
    assert float(betas[-1]) == pytest.approx(0.999999, rel=1e-15)


@pytest.mark.parametrize("inside", INSIDE)
def test_zero_terminal_snr_keeps_the_first_alpha_and_ends_without_signal(inside: str) -> None:
    schedule = build("noise", inside)
    alpha = (1 - ZeroTerminalSNRSchedule(1000, schedule).betas()).cumprod(0).sqrt()
    kept = (1 - schedule.betas()[0]).sqrt()
    assert float(alpha[0]) == pytest.approx(float(kept), rel=1e-15)
    # The root of 1 - 0.999999 of what was left before, where Lin et al. have 0.
    assert float(alpha[-1] / alpha[-2]) == pytest.approx(1e-3, rel=1e-9)
    assert alpha[-1] < 1e-5


def test_zero_terminal_snr_of_one_step_is_the_schedule_inside() -> None:
    betas = build("noise", "zero_terminal_snr", num_steps=1).betas()  # linear
    assert betas.tolist() == [pytest.approx(0.1, rel=1e-14)]


@pytest.mark.parametrize("inside", [*INSIDE, "hybrid", "karras"])
def test_snr_shift_lowers_log_snr_by_the_log_of_the_ratio_of_values(inside: str) -> None:
    """The reference is an image of 64 x 64."""
    schedule = build("noise", inside)
    before = log_snr(schedule)
    sizes = [(128, 128, 1), (32, 32, 1), (16, 64, 8), (64, 64, 16), (64, 64, 1)]
    for height, width, num_frames in sizes:
        shifted = SNRShiftSchedule(1000, schedule, [height, width], num_frames)
        after, shift = log_snr(shifted), log(64 * 64 / (height * width * num_frames))
        unclipped = (shifted.betas() < 0.9999).cumprod(0).bool()
        assert unclipped.sum() > 300
        # Below log-SNR -700 float64 has no alpha to compare; 1e-10 of a sum of 1000 logarithms.
        torch.testing.assert_close(
            after[unclipped], before[unclipped] + shift, rtol=1e-12, atol=1e-10
        )


def test_snr_shift_of_images_is_that_of_hoogeboom_et_al() -> None:
    """2 log(64 / d) on the cosine schedule."""
    for size in (32, 64, 128, 256):
        schedule = build("noise", "snr_shift", size=size, num_frames=1)
        assert schedule.shift == pytest.approx(2 * log(64 / size), rel=1e-15, abs=1e-15)


def test_snr_shift_takes_size_and_frames_of_the_data() -> None:
    schedule = build("noise", "snr_shift", "data.size=[32,64]", "data.num_frames=4")
    assert schedule.shift == pytest.approx(log(64 * 64 / (32 * 64 * 4)), rel=1e-15)


def test_snr_shift_is_undone_by_the_opposite_shift() -> None:
    there = build("noise", "snr_shift", size=64, num_frames=8)
    back = type(there)(1000, there, 64, 1, 64, 8, 0.9999)
    expected = log_snr(build("noise", "cosine"))
    torch.testing.assert_close(log_snr(back)[:-1], expected[:-1], rtol=1e-10, atol=1e-9)


@every_example
@pytest.mark.parametrize("num_steps", [1, 2, 3, 1000])
def test_matched_has_the_running_minimum_of_the_log_snr_of_any_process(
    process_type: type[GaussianProcess], noise: str, num_steps: int
) -> None:
    """As long as no beta is clipped at 0.999999; a clipped one leaves a chain behind for good."""
    process = process_under(process_type, noise, num_steps)
    schedule = MatchedSchedule(num_steps, process, max_beta=0.999999)
    expected = process.log_snr(torch.arange(1, num_steps + 1)).cummin(0).values
    unclipped = (schedule.betas() < 0.999999).cumprod(0).bool()
    assert unclipped.sum() >= num_steps - 1 or noise == "hybrid"
    actual = log_snr(schedule)
    torch.testing.assert_close(actual[unclipped], expected[unclipped], rtol=1e-12, atol=1e-10)


def test_matched_to_the_standard_chain_is_its_own_schedule() -> None:
    """Within the 1e-16 / (1 - abar) that a log-SNR near the data holds of a beta."""
    for name in ("linear", "cosine", "karras"):
        inner = build("noise", name)
        schedule = MatchedSchedule(1000, StandardProcess(inner), max_beta=0.9999)
        torch.testing.assert_close(schedule.betas(), inner.betas(), rtol=1e-9, atol=1e-12)


def test_matched_as_configured_is_the_median_chain_under_linear_noise() -> None:
    expected = process_under(MedianProcess, "linear").log_snr(torch.arange(1, 1001))
    actual = log_snr(build("noise", "matched"))
    torch.testing.assert_close(actual, expected.cummin(0).values, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("process_type", PROCESSES)
def test_matched_outlives_the_end_of_float64(process_type: type[GaussianProcess]) -> None:
    """Long hybrid chains leave no alpha in float64, and their log-SNR is minus infinity."""
    process = process_under(process_type, "hybrid", 4000)
    betas = MatchedSchedule(4000, process, 0.999999).betas()
    assert ((betas >= 0) & (betas < 1)).all()


@pytest.mark.parametrize("level", [30.0, 5.0, 0.0, -5.0, -30.0])
def test_betas_from_log_snr_are_exact_near_data_and_near_noise(level: float) -> None:
    """A fall of 1e-4: beta = 1 - abar_2 / abar_1 = 1e-4 sigma_1^2 to first order."""
    log_snr = torch.tensor([level, level - 1e-4], dtype=torch.float64)
    betas = betas_from_log_snr(log_snr, 0.9999).tolist()
    noise = 1 / (1 + exp(level))
    assert betas[0] == pytest.approx(min(noise, 0.9999), rel=1e-14)
    assert betas[1] == pytest.approx(1e-4 * noise, rel=1e-4)


def test_betas_from_log_snr_are_0_where_it_is_infinite_or_stays() -> None:
    inf = torch.inf
    betas = betas_from_log_snr(torch.tensor([inf, 3, 3, -inf, -inf]).double(), 0.9)
    assert betas.tolist() == [0, pytest.approx(1 / (1 + exp(3))), 0, 0.9, 0]


def test_a_process_of_another_length_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="num_steps=8 must be that of the process to match, got 3"):
        MatchedSchedule(8, StandardProcess(Betas([0.1] * 3)), 0.9999)
