"""What is reported of a process and schedule, and what is warned of."""

import pytest

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import CHAINS, NOISES, PROCESSES, Betas, ScheduledType, build


def test_median_hybrid_is_reported_with_its_known_figures() -> None:
    found = describe(MedianProcess(build("noise", "hybrid", num_steps=1000)))
    assert (found.num_steps, found.num_rises, found.num_zero_betas) == (1000, 499, 498)
    assert found.num_usable == 252
    assert found.warnings == [
        "log-SNR rises at 499 of 999 steps",
        "498 of 1000 betas are 0",
        "alpha underflows float32 at 17 steps (tables do not)",
        "samplers can use 252 steps, those of falling log-SNR above -12",
    ]


def test_standard_hybrid_has_snr_one_after_step_76() -> None:
    found = describe(StandardProcess(build("noise", "hybrid", num_steps=1000)))
    assert found.crossing == 76
    assert found.num_rises == 0


def test_standard_linear_is_reported_as_ho_et_al_describe_it() -> None:
    """alpha_T^2 = 4.04e-5, so that log-SNR ends at -10.1; section 4: L_T of 1e-5 bits for std 1."""
    found = describe(StandardProcess(build("noise", "linear", num_steps=1000)), data_std=1.0)
    assert found.log_snr_first == pytest.approx(9.21, abs=0.005)  # log(0.9999 / 0.0001)
    assert found.log_snr_last == pytest.approx(-10.12, abs=0.005)
    assert found.terminal_nats == pytest.approx(4.04e-5 / 2, rel=0.01)
    assert found.wide_share == pytest.approx(0.006)  # t = 995..1000
    assert found.warnings == []


@pytest.mark.parametrize("noise", ["linear", "cosine", "sigmoid", "hybrid_blend"])
def test_ordinary_choices_are_not_warned_of(noise: str) -> None:
    assert describe(StandardProcess(build("noise", noise))).warnings == []


def test_a_prior_that_misses_the_data_is_warned_of() -> None:
    found = describe(StandardProcess(Betas([0.1] * 10)))  # alpha^2 = 0.9^10 = 0.35
    assert found.terminal_nats == pytest.approx(0.25 / 2 * 0.9**10 / (1 - 0.9**10), rel=1e-12)
    assert "the prior misses 0.067 nats a value" in found.warnings[0]


@pytest.mark.parametrize("process_type", PROCESSES)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("num_steps", [1, 2, 1000])
def test_every_process_is_described(
    process_type: type[GaussianProcess], noise: str, num_steps: int
) -> None:
    found = describe(process_type(build("noise", noise, num_steps=num_steps)))
    assert found.num_usable >= 1
    assert process_type not in CHAINS or found.num_usable <= num_steps
    assert 0 <= found.num_rises < num_steps
    assert 0 <= found.crossing <= num_steps
    assert found.terminal_nats >= 0
    assert all("\n" not in warning for warning in found.warnings)


@pytest.mark.parametrize("process_type", PROCESSES)
def test_a_schedule_without_noise_is_refused(process_type: ScheduledType) -> None:
    with pytest.raises(ValueError, match="adds no noise at any step"):
        describe(process_type(Betas([0.0, 0.0])))
