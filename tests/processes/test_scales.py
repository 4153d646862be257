"""Continuous processes beside the variance-preserving one: their equations, and what they share."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import ContinuousProcess, VariancePreservingProcess
from ddpm_lightning.processes.flow import FlowProcess
from ddpm_lightning.processes.sub_variance_preserving import SubVariancePreservingProcess
from ddpm_lightning.processes.variance_exploding import VarianceExplodingProcess
from ddpm_lightning.samplers.noise import noise_source
from ddpm_lightning.samplers.walk import Draw, Point
from tests.problems import (
    CONTINUOUS,
    FLOOR,
    Gaussian,
    every_noise,
    options,
    process_under,
    trimodal,
)
from tests.samplers.shared import free

T = torch.linspace(0, 1000, 41, dtype=torch.float64)
CLIPS = log_snr_floor((1, 3, 16, 64, 64))


def linear_beta(t: float) -> float:
    return 1e-4 + (0.02 - 1e-4) * t / 1000


def linear_integral(t: float) -> float:
    return 1e-4 * t + (0.02 - 1e-4) * t**2 / 2000


# Drift f and squared diffusion g^2 of dx = f(t) x dt + g(t) dw, as published.
EQUATIONS: list[tuple[type[ContinuousProcess], str, Callable[[float], tuple[float, float]]]] = [
    (VariancePreservingProcess, "linear", lambda t: (-linear_beta(t) / 2, linear_beta(t))),
    (
        SubVariancePreservingProcess,
        "linear",
        lambda t: (-linear_beta(t) / 2, -linear_beta(t) * np.expm1(-2 * linear_integral(t))),
    ),
    (VarianceExplodingProcess, "flow", lambda t: (0.0, 2000 * t / (1000 - t) ** 3)),
    (FlowProcess, "flow", lambda t: (-1 / (1000 - t), 2 * t / (1000 * (1000 - t)))),
]


@pytest.mark.parametrize(("process_type", "noise", "equation"), EQUATIONS)
def test_marginals_and_covariances_solve_the_equation_of_the_process(
    process_type: type[ContinuousProcess],
    noise: str,
    equation: Callable[[float], tuple[float, float]],
) -> None:
    """d alpha / dt = f alpha, d sigma^2 / dt = 2 f sigma^2 + g^2, and d C[s, t] / dt = f C[s, t]
    from t = s on: from 100 to 900 of 1000, s = 400, by Runge-Kutta to 1e-9.
    """
    process = process_under(process_type, noise)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        f, g_squared = equation(t)
        return np.array([f * y[0], 2 * f * y[1] + g_squared, f * y[2]])

    alpha, sigma, _ = process.level(100.0)
    state = np.array([float(alpha), float(sigma) ** 2, 0.0])
    for start, end in pairwise((100.0, 400.0, 900.0)):
        state[2] = state[1]
        state = solve_ivp(slope, (start, end), state, rtol=1e-10, atol=1e-13).y[:, -1]
        alpha, sigma, _ = process.level(end)
        expected = [float(alpha), float(sigma) ** 2, float(process.covariance(start, end))]
        assert state == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("num_steps", [7, 1000])
def test_flow_under_its_own_schedule_is_the_straight_line(num_steps: int) -> None:
    """alpha = 1 - t / T, sigma = t / T, log-SNR 2 log((1 - t / T) / (t / T)); it ends at 1e-16."""
    t = T * num_steps / 1000
    alpha, sigma, log_snr = process_under(FlowProcess, "flow", num_steps).level(t)
    torch.testing.assert_close(alpha, 1 - t / num_steps, rtol=1e-12, atol=2e-16)
    torch.testing.assert_close(sigma, t / num_steps, rtol=1e-13, atol=0)
    expected = 2 * (1 - t / num_steps).log() - 2 * (t / num_steps).log()
    torch.testing.assert_close(log_snr[:-1], expected[:-1], rtol=1e-12, atol=1e-12)


@every_noise
def test_flow_has_coefficients_of_sum_one_under_every_schedule(noise: str) -> None:
    alpha, sigma, _ = process_under(FlowProcess, noise).level(T)
    torch.testing.assert_close(alpha + sigma, torch.ones_like(T), rtol=1e-14, atol=0)


def test_exploding_variance_leaves_the_signal_and_ends_at_the_noise_levels_of_its_schedule() -> (
    None
):
    """0.002 to 80 of Karras et al. 2022; the walk starts from N(0, 80^2)."""
    process = process_under(VarianceExplodingProcess, "karras")
    alpha, sigma, _ = process.level(torch.tensor([1.0, 1000.0]))
    assert alpha.tolist() == [1, 1]
    assert sigma.tolist() == pytest.approx([0.002, 80.0], rel=1e-6)
    start = Point.at(process, free("ddim").times(process, CLIPS)[0])
    drawn = free("ddim").start(start, process, lambda: torch.ones(2))
    assert drawn.tolist() == pytest.approx([process.prior_std] * 2)
    assert process.prior_std == pytest.approx(80.0)


@every_noise
def test_sub_variance_preserving_noise_is_the_square_of_the_preserving_one(noise: str) -> None:
    """Song et al. 2021, eq. 29: alpha as there, sigma = 1 - alpha^2."""
    alpha, sigma, _ = process_under(SubVariancePreservingProcess, noise).level(T)
    preserving = process_under(VariancePreservingProcess, noise).level(T)
    assert torch.equal(alpha, preserving.alpha)
    torch.testing.assert_close(sigma, preserving.sigma.square(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", [FlowProcess, VarianceExplodingProcess])
@every_noise
def test_flow_and_exploding_variance_have_the_log_snr_of_the_schedule(
    kind: type[GaussianProcess], noise: str
) -> None:
    """That of the variance-preserving process: the three differ in scale alone."""
    ours, theirs = (process_under(k, noise).log_snr(T) for k in (kind, VariancePreservingProcess))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def doubled(noise: Draw) -> Draw:
    """The same noise, in float64."""
    return lambda: noise().double()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in options("sampler") if name != "midpoint"])
def test_samplers_walk_every_continuous_process_alike_along_one_grid_of_log_snr(name: str) -> None:
    """x / alpha is one Brownian motion on the clock (sigma / alpha)^2, so that the same noise gives
    the same clips, to float64's round-off, and orders of convergence measured on one process are
    those of all. Midpoints lie a unit of time earlier, which is another log-SNR on each. Seed 0.
    """
    levels = torch.linspace(-8, 5, 9, dtype=torch.float64)
    ends: list[Tensor] = []
    for process_type in CONTINUOUS:
        process = process_under(process_type, "linear")
        times = torch.cat([process.axis(FLOOR).at_log_snr(levels), torch.zeros(1).double()])
        noise = noise_source((100,), torch.Generator().manual_seed(0), "cpu")
        sampler = free(name)
        start = sampler.start(Point.at(process, times[0]), process, doubled(noise))
        ends.append(sampler.walk(trimodal(process), start, times, doubled(noise)))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-8)


def test_euler_along_the_velocity_of_a_rectified_flow_is_ddim() -> None:
    """x_s = x_t + (s - t) E[noise - x_0 | x_t], t = 1 to 0 in ten equal steps, in three lines."""
    process = process_under(FlowProcess, "flow")
    data = Gaussian(process, mean=0.3, std=0.5)
    times = torch.cat([torch.tensor([999.9]), torch.arange(900, -1, -100)]).double()
    x = start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for t, s in pairwise(times):
        direction = (x - data.denoise(x, t)) / (t / 1000)
        x = x + (s - t) / 1000 * direction
    end = free("ddim").walk(data, start, times, lambda: torch.zeros(9))
    torch.testing.assert_close(end, x, rtol=0, atol=1e-13)
