"""Equalities between samplers, and of their steps with the conditionals of the process."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import noise_source
from ddpm_lightning.samplers.walk import Point
from tests.problems import (
    FLOOR,
    Mixture,
    ThirdOrderProcess,
    every_example,
    every_noise,
    process_under,
    trimodal,
)
from tests.samplers.shared import free, sampled

X = torch.linspace(-2, 2, 5, dtype=torch.float64)


class Learned(Mixture):
    """With a variance that a network has learned: the same share everywhere."""

    share = 0.0

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return Estimate(self.denoise_at(x, level), torch.full_like(x, self.share))


def learned(process: GaussianProcess, share: float) -> Learned:
    data = Learned(process, [0.3, 0.5, 0.2], [-0.8, 0.1, 0.7], [0.05, 0.1, 0.03])
    data.share = share
    return data


def one_step(
    sampler: Sampler, data: Any, t: Tensor, s: Tensor, x: Tensor, noise: float | Tensor
) -> Tensor:
    """From x at t to s, every draw being the given noise."""
    like = x[0] if x.dim() > 1 else x
    return sampler.walk(data, x, torch.stack([t, s]), lambda: noise + torch.zeros_like(like))


def law_of_step(
    sampler: Sampler, data: Any, t: Tensor, s: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean, like x, and variance of the step from x at t; or, for states (p, B), their covariance
    (p, p). By setting one draw at a time to 1 and the others to 0.
    """
    drawn: list[int] = []

    def moved_by(k: int | None) -> Tensor:
        drawn.clear()
        like = x[0] if x.dim() > 1 else x

        def draw() -> Tensor:
            drawn.append(len(drawn))
            return torch.full_like(like, float(drawn[-1] == k))

        return sampler.walk(data, x, torch.stack([t, s]), draw)

    mean = moved_by(None)
    ways = [moved_by(k) - mean for k in range(len(drawn))]
    if x.dim() == 1:
        return mean, sum((way.square() for way in ways), torch.zeros_like(x))
    roots = torch.stack([way[:, 0] for way in ways], dim=1)
    return mean, roots @ roots.mT


# DDIM, Euler and ancestral sampling


@every_example
def test_ddim_with_eta_one_is_ancestral(process_type: type[GaussianProcess], noise: str) -> None:
    """Step by step, for the same noise, in float64."""
    data = trimodal(process_under(process_type, noise, 100))
    ddim, ancestral = free("ddim", eta=1.0), free("ancestral", num_evaluations=20, variance=0.0)
    assert ddim.stochastic
    for t, s in pairwise(ancestral.times(data.process, FLOOR)):
        ends = [one_step(sampler, data, t, s, X, X.flip(0)) for sampler in (ddim, ancestral)]
        # sigma_s^2 - std^2 cancels where x_t says little of x_s: the root of 1e-16.
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-7)


@every_noise
def test_sde_is_ancestral_on_the_standard_chain(noise: str) -> None:
    """The reverse SDE of a Markov chain, solved exactly for one estimate, is its conditional."""
    data = trimodal(process_under(StandardProcess, noise, 100))
    sde, ancestral = free("sde"), free("ancestral", variance=0.0, num_evaluations=20)
    for t, s in pairwise(ancestral.times(data.process, FLOOR)):
        first, second = (law_of_step(sampler, data, t, s, X) for sampler in (sde, ancestral))
        torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(first[1], second[1], rtol=1e-9, atol=1e-12)


@every_example
def test_sde_without_noise_is_ddim(process_type: type[GaussianProcess], noise: str) -> None:
    data = trimodal(process_under(process_type, noise, 100))
    sde, ddim = free("sde", eta=0.0), free("ddim", eta=0.0, num_evaluations=20)
    for t, s in pairwise(ddim.times(data.process, FLOOR)):
        ends = [one_step(sampler, data, t, s, X, X) for sampler in (sde, ddim)]
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


@every_example
def test_euler_without_churn_is_ddim(process_type: type[GaussianProcess], noise: str) -> None:
    """float32, seed 0."""
    data = trimodal(process_under(process_type, noise, 100))
    samples = [
        sampled(free(name, grid="karras", num_evaluations=20, **overrides), data, 100)
        for name, overrides in (("euler", {"churn": 0.0}), ("ddim", {"eta": 0.0}))
    ]
    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=1e-6)


@every_example
def test_ancestral_step_is_the_conditional_of_the_process(
    process_type: type[GaussianProcess], noise: str
) -> None:
    data = trimodal(process_under(process_type, noise, 30))
    sampler = free("ancestral", variance=0.0, num_evaluations=10)
    for t, s in pairwise(sampler.times(data.process, FLOOR)):
        if s:
            mean, std = data.process.condition(data.denoise(X, t), X, s, t)
            expected = mean + std * (2 + X)
            torch.testing.assert_close(
                one_step(sampler, data, t, s, X, 2 + X), expected, rtol=0, atol=1e-14
            )


# Variance of the ancestral step


def test_upper_variance_between_neighbours_of_the_standard_chain_is_beta() -> None:
    process = process_under(StandardProcess, "linear", 50)
    data = trimodal(process)
    sampler = free("ancestral", variance=1.0)
    for t in torch.tensor([2, 3, 10, 25, 50]):
        _, variance = law_of_step(sampler, data, t, t - 1, X)
        expected = process.schedule.betas()[t - 1].expand_as(X)
        torch.testing.assert_close(variance, expected, rtol=1e-10, atol=0)


@pytest.mark.slow
@every_example
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_learned_variance_lies_where_the_network_says(
    share: float, process_type: type[GaussianProcess], noise: str
) -> None:
    """variance=null with a share learned is variance=share; their logarithms are interpolated."""
    process = process_under(process_type, noise, 100)
    by_network, fixed, lower, upper = (
        free("ancestral", num_evaluations=8, variance=v) for v in (None, share, 0.0, 1.0)
    )
    for t, s in pairwise(fixed.times(process, FLOOR)):
        mean, variance = law_of_step(by_network, learned(process, share), t, s, X)
        expected = law_of_step(fixed, trimodal(process), t, s, X)
        torch.testing.assert_close(mean, expected[0], rtol=0, atol=1e-14)
        # Squares of differences of numbers of order one.
        torch.testing.assert_close(variance, expected[1], rtol=1e-9, atol=1e-18)
        low, high = (law_of_step(end, trimodal(process), t, s, X)[1] for end in (lower, upper))
        assert (low <= high).all()
        torch.testing.assert_close(
            variance, low ** (1 - share) * high**share, rtol=1e-9, atol=1e-18
        )


def test_a_learned_variance_that_is_not_there_is_refused() -> None:
    data = trimodal(process_under(StandardProcess, "linear"))
    with pytest.raises(ValueError, match="variance=null takes the learned variance") as error:
        sampled(free("ancestral", variance=None), data, 2)
    assert "\n" not in str(error.value)


# Midpoints


@every_noise
def test_double_steps_on_the_median_chain_are_the_midpoint_walk(noise: str) -> None:
    """x_t -> u_{t-1} -> x_{t-2} with one estimate of x_0: the same mean and variance.

    Written out with to_origin and, for x_{t-2} | u_{t-1}, x_0, with the covariances.
    """
    process = process_under(MedianProcess, noise, 20)
    data = trimodal(process)
    for t in torch.arange(4, int(process.axis(FLOOR).last) + 1, 4):
        near, far = t - 1, t - 2
        x_0 = data.denoise(X, t)
        variance_far = process.covariance(far, far)
        variance_u = (process.covariance(near, near) + variance_far) / 4
        variance_u += process.covariance(near, far) / 2
        gain = (process.covariance(near, far) + variance_far) / 2 / variance_u
        alpha_far = process.level(far).alpha
        alpha_u = (process.level(near).alpha + alpha_far) / 2
        u_mean, u_std = process.to_origin(t).at(x_0, X)
        mean = alpha_far * x_0 + gain * (u_mean - alpha_u * x_0)
        variance = (variance_far - gain**2 * (variance_u - u_std.square())).clamp(min=0)
        for name in ("midpoint", "ancestral"):
            step = law_of_step(free(name), data, t, far, X)
            torch.testing.assert_close(step[0], mean, rtol=0, atol=1e-13)
            # Differences of numbers of order one: 1e-16 times a few.
            torch.testing.assert_close(step[1], variance.expand_as(X), rtol=1e-10, atol=1e-14)


@every_example
def test_midpoint_steps_are_ancestral_in_law(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """Also where a continuous process is walked by strides that its midpoint is not within."""
    data = trimodal(process_under(process_type, noise, 100))
    midpoint, ancestral = (free(name, num_evaluations=12) for name in ("midpoint", "ancestral"))
    for t, s in pairwise(ancestral.times(data.process, FLOOR)):
        first, second = (law_of_step(sampler, data, t, s, X) for sampler in (midpoint, ancestral))
        torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-13)
        torch.testing.assert_close(first[1], second[1], rtol=1e-9, atol=1e-14)


# Pairs


@every_noise
def test_pair_is_ancestral_on_the_standard_chain(noise: str) -> None:
    """The same noise gives the same walk, in float64, on the same steps; seed 0."""
    process = process_under(StandardProcess, noise, 100)
    data = trimodal(process)
    pair, ancestral = (free(name, num_evaluations=20) for name in ("pair", "ancestral"))
    assert torch.equal(pair.times(process, FLOOR), ancestral.times(process, FLOOR))
    single = noise_source((5,), torch.Generator().manual_seed(0), "cpu")
    noises = [single().double() for _ in range(21)]
    ends = [
        sampler.walk(data, x, sampler.times(process, FLOOR), iter(noises).__next__)
        for sampler, x in ((pair, X[None]), (ancestral, X))
    ]
    # The root of a variance that is a difference of numbers of order one.
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("process_type", [StandardProcess, MedianProcess, ThirdOrderProcess])
def test_pair_step_is_the_conditional_of_the_joint_gaussian(
    process_type: type[GaussianProcess],
) -> None:
    """States X_t = (x_t .. x_{t-p+1}): the estimate at their best combination, and then the mean
    and covariance of X_s | X_t, x_0 from the joint law of both, written out.
    """
    process = process_under(process_type, "linear", 20)
    data, p = trimodal(process), process.memory
    state = torch.linspace(-1, 1, p, dtype=torch.float64)
    sampler = free("pair")
    for t, s in ((16, 15), (16, 13), (11, 7), (8, 5)):
        times_t, times_s = (torch.arange(u, u - p, -1) for u in (t, s))
        a_t, a_s = (process.level(times).alpha for times in (times_t, times_s))
        c_tt, c_st, c_ss = (
            process.covariance(one[:, None], other)
            for one, other in ((times_t, times_t), (times_s, times_t), (times_s, times_s))
        )
        w = torch.linalg.solve(c_tt, a_t)
        snr = w @ a_t
        x_0 = data.denoise_at(
            (w @ state / snr)[None], Level.of(torch.ones(()).double(), snr.rsqrt())
        )
        gain = torch.linalg.solve(c_tt, c_st, left=False)
        mean = a_s * x_0 + gain @ (state - a_t * x_0)
        step = law_of_step(sampler, data, torch.tensor(t), torch.tensor(s), state[:, None])
        torch.testing.assert_close(step[0][:, 0], mean, rtol=0, atol=1e-11)
        # Steps that overlap hand values on: a row of zeros, to round-off.
        torch.testing.assert_close(step[1], c_ss - gain @ c_st.mT, rtol=0, atol=1e-13)


def test_pair_starts_from_the_joint_prior() -> None:
    """On an AR(3) chain: covariance of the last three values."""
    process = process_under(ThirdOrderProcess, "linear", 20)
    units = iter(torch.eye(3, dtype=torch.float64))
    root = free("pair").start(Point.at(process, torch.tensor(20)), process, units.__next__)
    times = torch.arange(20, 17, -1)
    expected = process.covariance(times[:, None], times)
    torch.testing.assert_close(root @ root.mT, expected, rtol=0, atol=1e-14)


def test_pair_refuses_a_chain_that_is_shorter_than_its_state() -> None:
    process = process_under(MedianProcess, "linear", 1)
    with pytest.raises(ValueError, match="no prior of states") as error:
        sampled(free("pair", num_evaluations=1), trimodal(process), 2)
    assert "\n" not in str(error.value)
