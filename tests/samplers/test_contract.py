"""What every sampler in conf/sampler promises: its calls, noise, states, range and errors.

A sampler sees an estimator and a grid, so that two chains stand for all processes: one that is
Markov, and one that is neither Markov nor monotone. That it walks every process is in
tests/test_pairwise.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import MAX_LOG_SNR, Level, log_snr_floor
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import noise_source, per_sample_generators
from ddpm_lightning.samplers.walk import State
from tests.problems import (
    FLOOR,
    PROCESSES,
    Betas,
    Mixture,
    build,
    options,
    process_under,
    trimodal,
)
from tests.samplers.shared import every_sampler, example_chains, member, sampled

CLIPS = (4, 1, 2, 3, 3)  # (B, C, F, H, W)


def problem(process_type: type[GaussianProcess], noise: str) -> Mixture:
    """Data on a chain of 100 steps, of which a walk takes 20 at most."""
    return trimodal(process_under(process_type, noise, 100))


class Watched:
    """An estimator that keeps what it was asked and what it said."""

    def __init__(self, data: Mixture) -> None:
        self.process, self.statistics = data.process, data.statistics
        self.log_snrs: list[float] = []
        self.seen: list[tuple[Tensor, Tensor]] = []
        self._data = data

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        self.log_snrs.append(float(level.log_snr))
        estimate = self._data.estimate_at(x, level)
        self.seen.append((x.clone(), estimate.x_0.clone()))
        return estimate


def sampler_for(name: str, process: GaussianProcess, num_evaluations: int) -> Sampler:
    """As configured, with as many evaluations as the process allows, and no more than given."""
    sampler = member(name, num_evaluations=num_evaluations)
    if isinstance(process, AutoregressiveProcess):
        while sampler.num_intervals > sampler.axis(process, FLOOR).num_steps:
            sampler.num_evaluations -= 1
    return sampler


# Calls


@example_chains
@every_sampler
def test_a_walk_makes_as_many_calls_as_it_says(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    data = problem(process_type, noise)
    for num_evaluations in (1, 2, 3, 4, 20):
        sampler = member(name, num_evaluations=num_evaluations)
        data.num_calls = 0
        sampled(sampler, data, 2)
        assert data.num_calls == sampler.num_calls
        assert max(1, num_evaluations - 1) <= data.num_calls <= num_evaluations


def test_heun_makes_49_of_50_calls() -> None:
    assert build("sampler", "heun", num_evaluations=50).num_calls == 49


@every_sampler
def test_no_evaluation_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="num_evaluations must be at least 1, got 0"):
        type(member(name))(num_evaluations=0)


@example_chains
@every_sampler
def test_more_intervals_than_usable_steps_are_refused(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 10)
    sampler = sampler_for(name, process, 10)
    assert sampled(sampler, trimodal(process), 2).isfinite().all()
    while sampler.num_intervals <= sampler.axis(process, FLOOR).num_steps:
        sampler.num_evaluations += 1
    with pytest.raises(ValueError, match=r"intervals are more than the \d+ steps") as error:
        sampled(sampler, trimodal(process), 2)
    assert "\n" not in str(error.value)


@every_sampler
def test_a_schedule_without_noise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="adds no noise") as error:
        sampled(member(name), trimodal(StandardProcess(Betas([0.0, 0.0]))), 2)
    assert "\n" not in str(error.value)


# Range


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process_type", "num_steps"),
    [
        *((StandardProcess, n) for n in (1, 2, 3, 1000)),
        *((MedianProcess, n) for n in (1, 2, 3, 10, 1000)),
        (VariancePreservingProcess, 10),
    ],
)
def test_every_sampler_stays_above_the_floor_and_finite_for_any_length_of_chain(
    process_type: type[GaussianProcess], num_steps: int
) -> None:
    """The network is asked at no log-SNR below the floor, and clips are finite and float32, under
    hybrid noise, whose alpha_T is far below float32; 20 evaluations at most.
    """
    process = process_under(process_type, "hybrid", num_steps)
    for name in options("sampler"):
        if name == "pair" and num_steps < process.memory:
            continue  # refused
        watched = Watched(trimodal(process))
        x = sampled(sampler_for(name, process, 20), watched, *CLIPS)
        assert min(watched.log_snrs) >= -MAX_LOG_SNR, name
        assert x.dtype == torch.float32, name
        assert x.shape == CLIPS, name
        assert x.isfinite().all(), name


# Noise


@example_chains
@every_sampler
def test_the_same_seed_gives_the_same_samples(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    data = problem(process_type, noise)
    sampler = member(name, num_evaluations=5)
    first, again, other = (sampled(sampler, data, 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@example_chains
@every_sampler
def test_noise_beyond_the_start_is_drawn_by_stochastic_samplers_alone(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    data = problem(process_type, noise)
    sampler = member(name, num_evaluations=10)
    generator = torch.Generator().manual_seed(0)
    sampler.sample(data, (5,), generator=generator)
    after = torch.Generator().manual_seed(0)
    for _ in range(data.process.memory if name == "pair" else 1):
        torch.randn(5, generator=after)
    assert sampler.stochastic != torch.equal(generator.get_state(), after.get_state())


@example_chains
@every_sampler
def test_a_clip_with_its_own_generator_does_not_depend_on_its_batch(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    """To the bit: alone, in another place, and among others; 17 values fill no vector register."""
    data = problem(process_type, noise)
    sampler = member(name, num_evaluations=5)

    def clips(numbers: list[int]) -> Tensor:
        generators = per_sample_generators(5, numbers)
        return sampler.sample(data, (len(numbers), 1, 17), generator=generators)

    batch = clips([0, 1, 2, 3, 4])
    assert torch.equal(clips([3])[0], batch[3])
    assert torch.equal(
        clips([7, 4, 9, 1]), torch.stack([clips([7])[0], batch[4], clips([9])[0], batch[1]])
    )
    assert batch.reshape(5, -1).unique(dim=0).shape[0] == 5


def test_generators_of_samples_are_told_apart_by_seed_and_number() -> None:
    first = [g.initial_seed() for seed in (0, 1) for g in per_sample_generators(seed, range(100))]
    assert len(set(first)) == 200
    assert [g.initial_seed() for g in per_sample_generators(1, [7])] == [first[107]]


def test_generators_must_be_as_many_as_samples() -> None:
    with pytest.raises(ValueError, match="3 samples need as many generators, got 2"):
        noise_source((3, 1), per_sample_generators(0, [0, 1]), "cpu")


# States


def watch(
    sampler: Sampler, data: Any, shape: tuple[int, ...] = CLIPS
) -> tuple[Tensor, list[State], list[State]]:
    """The clips, all states that a callback received, and what they were then; seed 0."""
    states: list[State] = []
    copies: list[State] = []

    def keep(state: State) -> None:
        states.append(state)
        copies.append(State(state.t, state.x.clone(), state.x_0.clone()))

    generator = torch.Generator().manual_seed(0)
    x = sampler.sample(data, shape, generator=generator, callback=keep)
    return x, states, copies


@example_chains
@every_sampler
def test_a_callback_sees_every_state_of_the_grid_down_to_the_clips_and_changes_nothing(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    watched = Watched(problem(process_type, noise))
    sampler = member(name, num_evaluations=9)
    x, states, copies = watch(sampler, watched)
    assert [state.t for state in states] == sampler.times(
        watched.process, log_snr_floor(CLIPS)
    ).tolist()
    assert torch.equal(states[-1].x, x)
    assert torch.equal(states[-1].x_0, x)
    assert torch.equal(sampled(sampler, problem(process_type, noise), *CLIPS), x)
    for state, copy in zip(states, copies, strict=True):
        assert state.x.shape == state.x_0.shape == CLIPS
        # nothing that was handed out is written to afterwards
        assert torch.equal(state.x, copy.x)
        assert torch.equal(state.x_0, copy.x_0)
    asked = [(x_t, x_0.clamp(-1, 1)) for x_t, x_0 in watched.seen]
    for state in states[:-1]:
        assert any(torch.equal(state.x, x_t) and torch.equal(state.x_0, x_0) for x_t, x_0 in asked)


@example_chains
@every_sampler
def test_a_walk_does_not_write_to_its_start(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    data = problem(process_type, noise)
    sampler = member(name, num_evaluations=9)
    draw = noise_source((5,), torch.Generator().manual_seed(0), "cpu")
    start = torch.stack([draw() for _ in range(data.process.memory)]) if name == "pair" else draw()
    before = start.clone()
    sampler.walk(data, start, sampler.times(data.process, FLOOR), draw)
    assert torch.equal(start, before)


# Values that a user may set


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ancestral", {"variance": 1.5}, r"variance must lie in \[0, 1\]"),
        ("ancestral", {"variance": -0.1}, r"variance must lie in \[0, 1\]"),
        ("ddim", {"eta": -0.1}, r"eta must lie in \[0, 1\]"),
        ("ddim", {"eta": 1.1}, r"eta must lie in \[0, 1\]"),
        ("dpmpp_2m", {"eta": -0.1}, "eta must be 0 or more"),
        ("euler", {"churn": -1.0}, "churn, churn_min and churn_noise must be 0 or more"),
        ("heun", {"churn_min": 2.0, "churn_max": 1.0}, "churn_max at least churn_min"),
        ("sde", {"eta": -1.0}, "eta and corrector_steps must be 0 or more"),
        ("sde", {"corrector_steps": -1}, "eta and corrector_steps must be 0 or more"),
        ("predictor_corrector", {"corrector_snr": 0.0}, "corrector_snr positive"),
        ("unipc", {"predictor_order": 0}, "predictor_order must be 1, 2 or 3, got 0"),
        ("unipc", {"predictor_order": 4}, "predictor_order must be 1, 2 or 3, got 4"),
    ],
)
def test_a_value_outside_its_range_is_refused(
    name: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build("sampler", name, **overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("ddim", {"eta": 0.0}, {"eta": 0.5}),
        ("dpmpp_2m", {"eta": 0.0}, {"eta": 0.5}),
        ("euler", {"churn": 0.0}, {"churn": 1.0}),
        ("heun", {"churn": 0.0}, {"churn": 1.0}),
        ("sde", {"eta": 0.0}, {"eta": 0.5}),
        ("predictor_corrector", {"eta": 0.0, "corrector_steps": 0}, {"eta": 0.0}),
    ],
)
def test_samplers_say_whether_they_draw_noise(
    name: str, off: dict[str, Any], on: dict[str, Any]
) -> None:
    assert not build("sampler", name, **off).stochastic
    assert build("sampler", name, **on).stochastic


# Accelerators


class Blend(nn.Module):
    """A network that depends on all it is given."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return x.mul(0.5) + log_snr.reshape(-1, *[1] * (x.dim() - 1)).tanh()


@pytest.fixture
def no_waiting() -> Any:
    """An error wherever the CPU would wait for the accelerator."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.zeros(1, device="cuda").item()  # the context, made before
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@every_sampler
def test_no_walk_waits_for_the_accelerator(name: str, no_waiting: Callable[[], None]) -> None:
    """And the same generators, on the CPU, give the same clips there as here: float32."""
    for process_type in PROCESSES:
        process = process_under(process_type, "hybrid")
        denoiser = Denoiser(Blend(), process, build("objective", "velocity"))
        for thresholding in ("static", "dynamic"):
            sampler = member(name, num_evaluations=9)
            sampler.thresholding = build("sampler/thresholding", thresholding)
            there, here = (
                sampler.sample(
                    denoiser, CLIPS, generator=per_sample_generators(0, range(4)), device=device
                )
                for device in ("cuda", "cpu")
            )
            torch.cuda.set_sync_debug_mode("default")
            torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)
            torch.cuda.set_sync_debug_mode("error")
