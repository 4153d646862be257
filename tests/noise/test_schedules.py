"""Laws of every noise schedule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.noise.matched import MatchedSchedule
from ddpm_lightning.noise.snr_shift import SNRShiftSchedule
from ddpm_lightning.noise.zero_terminal_snr import ZeroTerminalSNRSchedule
from ddpm_lightning.processes.median import MedianProcess
from tests.problems import build, composed_alone, noises, options

NUM_STEPS = [1, 2, 3, 50, 1000]

every_noise = pytest.mark.parametrize("name", noises())


@every_noise
def test_betas_are_float64_in_the_half_open_unit_interval(name: str) -> None:
    """And add noise at some step."""
    for num_steps in NUM_STEPS:
        schedule = build("noise", name, num_steps=num_steps)
        betas = schedule.betas()
        assert schedule.num_steps == num_steps
        assert betas.shape == (num_steps,)
        assert betas.dtype == torch.float64
        assert betas.min() >= 0
        assert betas.max() < 1
        assert betas.sum() > 0


@every_noise
def test_asking_twice_gives_the_same_betas(name: str) -> None:
    schedule = build("noise", name, num_steps=50)
    first = schedule.betas().clone()
    schedule.betas().zero_()
    assert torch.equal(schedule.betas(), first)


@every_noise
def test_max_beta_bounds_every_beta(name: str) -> None:
    """Also where a curve ends at 0, or log-SNR at minus infinity."""
    for num_steps in NUM_STEPS:
        betas = build("noise", name, num_steps=num_steps, max_beta=0.3).betas()
        assert betas.max() <= 0.3
        assert betas.isfinite().all()


@every_noise
def test_a_chain_without_steps_is_refused_in_one_line(name: str) -> None:
    for num_steps in (0, -3):
        message = f"num_steps must be at least 1, at most 20000, got {num_steps}"
        with pytest.raises(ValueError, match=message) as error:
            build("noise", name, num_steps=num_steps)
        assert "\n" not in str(error.value)


@every_noise
def test_max_beta_outside_the_open_unit_interval_is_refused(name: str) -> None:
    for max_beta in (0.0, -0.1, 1.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match=rf"max_beta must lie in \(0, 1\), got {max_beta}"):
            build("noise", name, num_steps=10, max_beta=max_beta)


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("linear", {"start": -0.1}, "0 <= start <= end, got start=-0.1, end=0.02"),
    ("linear", {"start": 0.02, "end": 0.01}, "0 <= start <= end, got start=0.02, end=0.01"),
    ("linear", {"end": float("nan")}, "0 <= start <= end, got start=0.0001, end=nan"),
    ("scaled_linear", {"start": 0.5}, "0 <= start <= end, got start=0.5, end=0.012"),
    ("cosine", {"offset": -1.0}, "offset must be 0 or more, got -1.0"),
    ("hybrid", {"offset": -0.1}, "offset must be 0 or more, got -0.1"),
    ("hybrid_blend", {"offset": -0.1}, "offset must be 0 or more, got -0.1"),
    ("sigmoid", {"start": 3.0}, "start must be less than end, got 3.0 and 3.0"),
    ("sigmoid", {"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ("karras", {"sigma_min": 0.0}, "0 < sigma_min < sigma_max, got 0.0 and 80.0"),
    ("karras", {"sigma_max": 0.001}, "0 < sigma_min < sigma_max, got 0.002 and 0.001"),
    ("karras", {"rho": 0.0}, "rho must be positive, got 0.0"),
    ("snr_shift", {"size": 0}, "size and num_frames must be at least 1, got 0 and"),
    ("snr_shift", {"num_frames": 0}, "size and num_frames must be at least 1, got"),
    ("snr_shift", {"reference_size": [8, 0]}, r"at least 1, got \[8, 0\] and 1"),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSALS)
def test_a_bad_value_is_refused_with_what_was_given_and_what_is_allowed(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build("noise", name, **values)
    assert "\n" not in str(error.value)


def test_every_number_of_every_schedule_has_a_refusal() -> None:
    """num_steps and max_beta are tried above; frames of a reference are checked like those here."""
    tried = {(name, key) for name, values, _ in REFUSALS for key in values}
    free = {"_target_", "num_steps", "max_beta", "schedule", "process", "reference_frames"}
    ordered = {("cosine", "start"), ("sigmoid", "end"), ("scaled_linear", "end")}
    keys = {
        (name, key)
        for name in options("noise")
        for key in composed_alone("noise", name).noise
        if key not in free
    }
    assert keys - tried - ordered == set()


# Each as a function of the schedule inside, and the word that exchanges that one.
WRAPPERS: dict[str, tuple[Callable[[NoiseSchedule], NoiseSchedule], str]] = {
    "zero_terminal_snr": (
        lambda inside: ZeroTerminalSNRSchedule(inside.num_steps, inside),
        "noise@noise.schedule",
    ),
    "snr_shift": (
        lambda inside: SNRShiftSchedule(inside.num_steps, inside, size=32, num_frames=8),
        "noise@noise.schedule",
    ),
    "matched": (
        lambda inside: MatchedSchedule(inside.num_steps, MedianProcess(inside)),
        "noise@noise.process.schedule",
    ),
}
every_wrapper = pytest.mark.parametrize("name", WRAPPERS)


def test_every_schedule_with_another_inside_is_a_wrapper_here() -> None:
    nodes = {name: composed_alone("noise", name).noise for name in options("noise")}
    assert {n for n, node in nodes.items() if {"schedule", "process"} & {*node}} == {*WRAPPERS}


@every_wrapper
def test_every_wrapper_takes_every_schedule(name: str) -> None:
    """Odd lengths: hybrid's last beta is 0 there, so that a rescaled curve is 0 twice."""
    wrap, _ = WRAPPERS[name]
    for num_steps in (1, 2, 3, 7, 100):
        for inside in options("noise"):
            betas = wrap(build("noise", inside, num_steps=num_steps)).betas()
            assert betas.shape == (num_steps,)
            assert ((betas >= 0) & (betas < 1)).all()
            assert betas.sum() > 0


@every_wrapper
def test_a_word_exchanges_the_schedule_inside(name: str) -> None:
    wrap, word = WRAPPERS[name]
    size = {"size": 32, "num_frames": 8} if name == "snr_shift" else {}
    betas = build("noise", name, f"{word}=sigmoid", num_steps=7, **size).betas()
    assert torch.equal(betas, wrap(build("noise", "sigmoid", num_steps=7)).betas())


@every_wrapper
def test_a_schedule_inside_of_another_length_is_refused(name: str) -> None:
    words = [f"{WRAPPERS[name][1].removeprefix('noise@')}.num_steps=9", "noise.num_steps=8"]
    with pytest.raises(ValueError, match=r"num_steps=8 must be that of the .*, got 9"):
        build("noise", name, *words)
