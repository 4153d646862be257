"""What is reported of a process and schedule, and what is warned of."""

from functools import partial

import pytest

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import (
    CONTINUOUS,
    PROCESSES,
    Betas,
    ScheduledType,
    every_case,
    process_under,
)

report = partial(describe, shape=(1, 1))


def test_median_hybrid_is_reported_with_its_known_figures() -> None:
    found = report(process_under(MedianProcess, "hybrid"))
    assert (found.num_steps, found.num_rises, found.num_zero_betas) == (1000, 499, 498)
    assert found.num_usable == 252
    assert found.warnings == [
        "log-SNR rises at 499 of 999 steps",
        "498 of 1000 betas are 0",
        "alpha underflows float32 at 17 steps (tables do not)",
        "samplers can use 252 steps, those of falling log-SNR above -12.0",
    ]


def test_standard_hybrid_has_snr_one_after_step_76() -> None:
    found = report(process_under(StandardProcess, "hybrid"))
    assert found.crossing == 76
    assert found.num_rises == 0


def test_standard_linear_is_reported_as_ho_et_al_describe_it() -> None:
    """alpha_T^2 = 4.04e-5, so that log-SNR ends at -10.1; data of std 1/2."""
    found = report(process_under(StandardProcess, "linear"))
    assert found.log_snr_first == pytest.approx(9.21, abs=0.005)  # log(0.9999 / 0.0001)
    assert found.log_snr_last == pytest.approx(-10.12, abs=0.005)
    assert found.terminal_nats == pytest.approx(4.04e-5 / 8, rel=0.01)
    assert found.wide_share == pytest.approx(0.006)  # t = 995..1000
    assert found.warnings == []


@pytest.mark.parametrize("noise", ["linear", "cosine", "sigmoid", "hybrid_blend"])
def test_ordinary_choices_are_not_warned_of(noise: str) -> None:
    assert report(process_under(StandardProcess, noise)).warnings == []


def test_a_prior_that_misses_the_data_is_warned_of() -> None:
    """alpha^2 = 0.9^10 = 0.35."""
    found = describe(StandardProcess(Betas([0.1] * 10)), (1, 3, 2, 4, 4))
    assert found.terminal_nats == pytest.approx(96 / 8 * 0.9**10 / (1 - 0.9**10), rel=1e-12)
    assert "the prior misses 6.4 nats a clip" in found.warnings[0]


@pytest.mark.parametrize(
    ("process_type", "noise", "nats"),
    [
        (MedianProcess, "linear", 43),
        (StandardProcess, "scaled_linear", 115),
        (MedianProcess, "cosine", 0),
        (StandardProcess, "cosine", 0),
        (StandardProcess, "linear", 1),
    ],
)
def test_the_prior_misses_what_is_known_of_a_clip(
    process_type: ScheduledType, noise: str, nats: float
) -> None:
    """16 frames of 64x64 in colour: what is left of x_0 at t = T, for data of std 1/2."""
    found = describe(process_under(process_type, noise), (1, 3, 16, 64, 64))
    assert found.terminal_nats == pytest.approx(nats, abs=0.5)
    assert any("nats a clip" in warning for warning in found.warnings) == (nats > 0)


@every_case
def test_every_process_is_described(process_type: type[GaussianProcess], noise: str) -> None:
    for num_steps in (1, 2, 1000):
        found = report(process_under(process_type, noise, num_steps))
        assert found.num_usable >= 1
        assert process_type in CONTINUOUS or found.num_usable <= num_steps
        assert 0 <= found.num_rises < num_steps
        assert 0 <= found.crossing <= num_steps
        assert found.terminal_nats >= 0
        assert all("\n" not in warning for warning in found.warnings)


@pytest.mark.parametrize("process_type", PROCESSES)
def test_a_schedule_without_noise_is_refused(process_type: ScheduledType) -> None:
    with pytest.raises(ValueError, match="adds no noise at any step"):
        report(process_type(Betas([0.0, 0.0])))
