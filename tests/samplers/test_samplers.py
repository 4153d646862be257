"""Laws of every sampler in conf/sampler, against data whose denoiser is known exactly."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.samplers.base import Sampler, State, Walk
from ddpm_lightning.samplers.grid import decreasing_grid
from tests.problems import PROCESSES, Betas, Gaussian, Mixture, build, options, trimodal

every_process = pytest.mark.parametrize("process_type", PROCESSES)
every_noise = pytest.mark.parametrize("noise", options("noise"))
every_sampler = pytest.mark.parametrize("name", options("sampler"))

DETERMINISTIC = [
    name for name in options("sampler") if not build("sampler", name, clip=None).stochastic
]


def sampled(sampler: Sampler, data: Mixture, num_samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sampler.sample(data, (num_samples,), generator=generator)


def walk(
    sampler: Sampler, data: Mixture, x: Tensor, grid: list[int], draw: Callable[[], Tensor]
) -> Tensor:
    """The sampler's own steps along a grid of ours, in x's dtype."""

    steps = Walk(data.process, data.denoise, draw)
    for t, s in pairwise(grid):
        x = sampler.step(steps, x, data.denoise(x, t), t, s)
    return x


def quantiles(data: Gaussian, t: int) -> Tensor:
    """(9,) points of x_t's marginal, float64."""
    alpha, sigma = map(float, data.process.marginal(t))
    std = ((alpha * data.std) ** 2 + sigma**2) ** 0.5
    return alpha * data.mean + std * torch.linspace(-2, 2, 9, dtype=torch.float64)


# Distribution of the samples


@every_noise
@every_process
@every_sampler
def test_samples_have_the_mean_and_spread_of_gaussian_data(
    name: str, process_type: type, noise: str
) -> None:
    """50 evaluations, 20,000 samples, seed 0.

    Mean: the walk starts from N(0, sigma^2), not from the marginal, and carries that along the
    flow; plus 5 standard errors. Spread: discretisation errors of at most 0.083 were measured
    (ancestral on standard x hybrid, where few steps are left near the data).
    """
    data = Gaussian(process_type(build("noise", noise)), mean=0.3, std=0.5)
    num_samples = 20_000
    x = sampled(build("sampler", name, num_evaluations=50, clip=None), data, num_samples)
    start = int(decreasing_grid(data.process, 50)[0])
    start_error = float(data.flow(torch.zeros(1), start, 0)) - data.mean
    standard_error = data.std / num_samples**0.5
    assert abs(float(x.mean()) - data.mean) <= abs(start_error) * 1.1 + 5 * standard_error
    assert abs(float(x.std()) - data.std) <= 0.09 + 5 * standard_error


@every_noise
@every_process
@every_sampler
def test_more_evaluations_bring_the_spread_closer(
    name: str, process_type: type, noise: str
) -> None:
    """From 25 to 100 evaluations the error falls to half or less; at first order, to a quarter.

    10,000 samples, seed 0.
    """
    data = Gaussian(process_type(build("noise", noise)), mean=0.3, std=0.5)
    errors = [
        abs(
            float(sampled(build("sampler", name, num_evaluations=n, clip=None), data, 10_000).std())
            - 0.5
        )
        for n in (25, 100)
    ]
    standard_error = 0.5 / 20_000**0.5
    assert errors[1] <= errors[0] / 2 + 5 * standard_error


@every_noise
@every_process
@every_sampler
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 1000])
def test_samples_are_finite_and_float32(
    name: str, process_type: type, noise: str, clip: float | None, num_steps: int
) -> None:
    data = trimodal(process_type(build("noise", noise, num_steps=num_steps)))
    for num_evaluations in (1, 2, 5, 50):
        x = sampled(build("sampler", name, num_evaluations=num_evaluations, clip=clip), data, 64)
        assert x.dtype == torch.float32
        assert x.isfinite().all()


def distance_to_data(x: Tensor, data: Mixture) -> float:
    """Wasserstein-1: the mean distance of sorted samples to sorted samples of the data; seed 1."""
    exact = data.draw(len(x), torch.Generator().manual_seed(1))
    return float((x.double().sort().values - exact.sort().values).abs().mean())


@every_noise
@every_process
@every_sampler
def test_samples_are_close_to_the_mixture(name: str, process_type: type, noise: str) -> None:
    """50 evaluations, 5,000 samples, seed 0; at most 0.053, ancestral on standard x hybrid."""
    data = trimodal(process_type(build("noise", noise)))
    x = sampled(build("sampler", name, num_evaluations=50, clip=1.0), data, 5_000)
    # Two exact sets of 5,000 are about 0.01 apart.
    assert distance_to_data(x, data) <= 0.065


@pytest.mark.slow
@every_noise
@every_process
def test_ancestral_walk_of_every_usable_step_gives_the_mixture(
    process_type: type, noise: str
) -> None:
    """50,000 samples, seed 0. Two exact sets of samples are 0.003 apart."""
    data = trimodal(process_type(build("noise", noise, num_steps=1000)))
    x = sampled(build("sampler", "ancestral", num_evaluations=1000, clip=None), data, 50_000)
    distance = distance_to_data(x, data)
    print(f"W1 {process_type.__name__} {noise}: {distance:.4f}")
    assert distance <= 0.016  # measured: 0.006 to 0.014, most on hybrid, whose steps are few


@pytest.mark.slow
def test_median_hybrid_is_sampled_better_by_double_steps_than_by_single_ones() -> None:
    data = trimodal(MedianProcess(build("noise", "hybrid", num_steps=1000)))
    sampler = build("sampler", "ancestral", num_evaluations=1000, clip=None)
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(50_000, generator=generator)

    single = list(range(data.process.informative_steps(), -1, -1))
    sigma = float(data.process.marginal(single[0]).sigma)
    by_single = distance_to_data(walk(sampler, data, sigma * draw(), single, draw), data)
    by_double = distance_to_data(sampled(sampler, data, 50_000), data)
    print(f"W1 median hybrid: single {by_single:.4f}, double {by_double:.4f}")
    assert by_double < by_single / 3  # measured: 0.011 and 0.043


# Order of convergence


@pytest.mark.parametrize("noise", ["linear", "cosine"])
@every_process
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_converge_at_their_order(
    name: str, process_type: type, noise: str
) -> None:
    """Error against the exact probability flow, from log-SNR -8 (or the prior) to 5.

    Not to t = 0: log-SNR is infinite there, and the last interval is of first order. The chain is
    fine, 4000 steps, so that rounding the grid to whole steps does not bend the slope, and log-SNR
    is monotone. Float64 and the exact denoiser: all that is left is discretisation.
    """
    sampler = build("sampler", name, clip=None)
    data = Gaussian(process_type(build("noise", noise, num_steps=4000)), mean=0.3, std=0.5)
    log_snr = data.process.log_snr(torch.arange(1, 4001))
    start, end = (int((log_snr - level).abs().argmin()) + 1 for level in (-8, 5))
    x = quantiles(data, start)
    exact = data.flow(x, start, end)
    errors = []
    for num_intervals in (16, 32, 64, 128):
        grid = torch.linspace(start, end, num_intervals + 1).round().long().tolist()
        result = walk(sampler, data, x, grid, lambda: torch.zeros_like(x))
        errors.append(float((result - exact).abs().max()))
    slopes = torch.tensor(errors).log2().diff().neg()
    print(f"slopes {name} {process_type.__name__} {noise}:", slopes.tolist())
    assert (slopes > 0).all()
    torch.testing.assert_close(slopes, torch.full((3,), float(sampler.order)), rtol=0, atol=0.25)


@every_noise
@every_process
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_at_the_data_falls_with_every_doubling_of_the_evaluations(
    name: str, process_type: type, noise: str
) -> None:
    """Along the sampler's own grid, from its start to t = 0, against the exact flow."""
    data = Gaussian(process_type(build("noise", noise)), mean=0.3, std=0.5)
    errors = []
    for num_evaluations in (12, 25, 50, 100, 200):
        sampler = build("sampler", name, num_evaluations=num_evaluations, clip=None)
        grid = decreasing_grid(data.process, sampler.num_intervals).tolist()
        x = quantiles(data, grid[0])
        result = walk(sampler, data, x, grid, lambda x=x: torch.zeros_like(x))
        errors.append(float((result - data.flow(x, grid[0], 0)).abs().max()))
    # Near 0.003 two errors of opposite sign cancel at one count and not at the next.
    assert all(after < max(before, 0.003) for before, after in pairwise(errors)), errors
    # x lies within two standard deviations: a greater error is worse than to answer with the mean.
    assert errors[0] < 2 * data.std, errors


# Equalities between samplers and chains


@every_noise
@every_process
def test_ddim_with_eta_one_is_ancestral(process_type: type, noise: str) -> None:
    """The same noise gives the same clips; float32, 50 steps; seed 0."""
    data = trimodal(process_type(build("noise", noise)))
    ddim = build("sampler", "ddim", clip=None, eta=1.0)
    ancestral = build("sampler", "ancestral", clip=None)
    assert ddim.stochastic
    # Modes as narrow as 0.03 spread apart what rounding has separated between them.
    difference = (sampled(ddim, data, 1000) - sampled(ancestral, data, 1000)).abs()
    assert difference.quantile(0.99) < 1e-3
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for t, s in pairwise(decreasing_grid(data.process, 50).tolist()):
        ends = [walk(sampler, data, x, [t, s], lambda: x.flip(0)) for sampler in (ddim, ancestral)]
        # sigma_s^2 - std^2 cancels where x_t says little of x_s: the root of 1e-16.
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-7)


@every_noise
@every_process
def test_ancestral_step_is_the_conditional_of_the_chain(process_type: type, noise: str) -> None:
    data = trimodal(process_type(build("noise", noise, num_steps=30)))
    sampler = build("sampler", "ancestral", clip=None)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    for t, s in pairwise(decreasing_grid(data.process, 30).tolist()):
        mean, std = data.process.condition(data.denoise(x, t), x, s, t)
        assert torch.equal(walk(sampler, data, x, [t, s], lambda: 2 + x), mean + std * (2 + x))


@every_noise
def test_double_steps_on_the_median_chain_are_the_midpoint_walk(noise: str) -> None:
    """x_t -> u_{t-1} -> x_{t-2} with one estimate of x_0: the same mean and std.

    Written out with condition_midpoint and, for x_{t-2} | u_{t-1}, x_0, with the covariances.
    """
    process = MedianProcess(build("noise", noise, num_steps=20))
    data = trimodal(process)
    sampler = build("sampler", "ancestral", clip=None)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    for t in range(4, 21, 2):
        near, far = t - 1, t - 2
        x_0 = data.denoise(x, t)
        variance_far = process.covariance(far, far)
        variance_u = (process.covariance(near, near) + variance_far) / 4
        variance_u += process.covariance(near, far) / 2
        gain = (process.covariance(near, far) + variance_far) / 2 / variance_u
        alpha_far = process.marginal(far).alpha
        alpha_u = (process.marginal(near).alpha + alpha_far) / 2
        u_mean, u_std = process.condition_midpoint(x_0, x, t)
        mean = alpha_far * x_0 + gain * (u_mean - alpha_u * x_0)
        variance = variance_far - gain**2 * (variance_u - u_std.square())
        still = walk(sampler, data, x, [t, far], lambda: torch.zeros_like(x))
        moved = walk(sampler, data, x, [t, far], lambda: torch.ones_like(x))
        torch.testing.assert_close(still, mean, rtol=0, atol=1e-13)
        expected = variance.clamp(min=0).expand_as(x)
        # Differences of numbers of order one: 1e-16 times a few.
        torch.testing.assert_close((moved - still).square(), expected, rtol=1e-10, atol=1e-14)


# Calls, seeds, callbacks, errors


@every_noise
@every_process
@every_sampler
def test_no_walk_makes_more_calls_than_allowed(name: str, process_type: type, noise: str) -> None:
    data = trimodal(process_type(build("noise", noise)))
    for num_evaluations in (1, 2, 3, 50):
        data.num_calls = 0
        sampled(build("sampler", name, num_evaluations=num_evaluations), data, 2)
        assert num_evaluations - 1 <= data.num_calls <= num_evaluations
        assert data.num_calls >= 1


def test_heun_makes_49_of_50_calls() -> None:
    data = trimodal(PROCESSES[0](build("noise", "linear")))
    sampled(build("sampler", "heun", num_evaluations=50), data, 2)
    assert data.num_calls == 49


@every_sampler
def test_short_chains_are_walked_in_full(name: str) -> None:
    data = trimodal(PROCESSES[0](build("noise", "linear", num_steps=3)))
    sampler = build("sampler", name, num_evaluations=50)
    data.num_calls = 0
    sampled(sampler, data, 2)
    assert data.num_calls == (3 if sampler.num_intervals == 50 else 5)


@every_process
@every_sampler
def test_the_same_seed_gives_the_same_samples(name: str, process_type: type) -> None:
    data = trimodal(process_type(build("noise", "cosine")))
    sampler = build("sampler", name, num_evaluations=10)
    assert torch.equal(sampled(sampler, data, 50, seed=3), sampled(sampler, data, 50, seed=3))
    assert not torch.equal(sampled(sampler, data, 50, seed=3), sampled(sampler, data, 50, seed=4))


@every_process
@every_sampler
def test_noise_beyond_the_start_is_drawn_by_stochastic_samplers_alone(
    name: str, process_type: type
) -> None:
    data = trimodal(process_type(build("noise", "cosine")))
    sampler = build("sampler", name, num_evaluations=10)
    generator = torch.Generator().manual_seed(0)
    sampler.sample(data, (5,), generator=generator)
    after = torch.Generator().manual_seed(0)
    torch.randn(5, generator=after)
    assert sampler.stochastic != torch.equal(generator.get_state(), after.get_state())


@every_noise
@every_process
@every_sampler
def test_callback_sees_every_step_of_the_grid_down_to_the_result(
    name: str, process_type: type, noise: str
) -> None:
    data = trimodal(process_type(build("noise", noise)))
    sampler = build("sampler", name, num_evaluations=10, clip=1.0)
    states: list[State] = []
    generator = torch.Generator().manual_seed(0)
    x = sampler.sample(data, (2, 1, 3, 4, 4), generator=generator, callback=states.append)
    assert [state.t for state in states] == decreasing_grid(
        data.process, sampler.num_intervals
    ).tolist()
    assert torch.equal(states[-1].x, x)
    assert torch.equal(states[-1].x_0, x)
    for state in states:
        assert state.x.shape == state.x_0.shape == x.shape
        if state.t:
            assert torch.equal(state.x_0, data.denoise(state.x, state.t).clamp(-1, 1))


@every_process
@every_sampler
def test_samples_of_a_clipped_walk_are_within_the_clip(name: str, process_type: type) -> None:
    """With data far outside the clip every estimate is the clip's edge, and so is the last one."""
    data = Gaussian(process_type(build("noise", "linear")), mean=5.0, std=0.1)
    x = sampled(build("sampler", name, num_evaluations=20, clip=0.5), data, 100)
    torch.testing.assert_close(x, torch.full_like(x, 0.5), rtol=0, atol=1e-3)


@every_sampler
def test_no_evaluation_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="num_evaluations must be at least 1, got 0"):
        build("sampler", name, num_evaluations=0)


@every_sampler
@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_clip_must_be_positive(name: str, clip: float) -> None:
    with pytest.raises(ValueError, match="clip must be positive or null"):
        build("sampler", name, clip=clip)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_the_unit_interval_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        build("sampler", "ddim", eta=eta)


@every_process
@every_sampler
def test_a_schedule_without_noise_is_refused(name: str, process_type: type) -> None:
    data = trimodal(process_type(Betas([0.0, 0.0])))
    with pytest.raises(ValueError, match="adds no noise"):
        sampled(build("sampler", name), data, 2)
