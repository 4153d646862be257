"""Known facts of the two chains under the schedules they are compared on, and the midpoint."""

import pytest
import torch

from ddpm_lightning.processes.axis import DiscreteAxis
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import FLOOR, Betas, every_noise, process_under


def median(noise: str, num_steps: int = 1000) -> MedianProcess:
    return process_under(MedianProcess, noise, num_steps)


@every_noise
def test_median_process_does_not_preserve_variance(noise: str) -> None:
    alpha, sigma, _ = median(noise).level(torch.arange(2, 1001))
    assert (alpha.square() + sigma.square() - 1).abs().max() > 0.1


def test_median_linear_ends_where_it_is_known_to() -> None:
    process = median("linear")
    alpha, sigma, _ = process.level(1000)
    assert float(alpha) == pytest.approx(0.0343, abs=5e-5)
    assert float(sigma.square()) == pytest.approx(0.6715, abs=5e-5)
    assert process.prior_std == float(sigma)


def test_median_variance_tends_to_two_thirds_for_small_constant_beta() -> None:
    beta = 0.01  # the limit holds to order beta; after 1500 steps exp(-10) of the start is left
    process = MedianProcess(Betas([beta] * 1500))
    assert process.prior_std**2 == pytest.approx(2 / 3, abs=beta)


def test_standard_hybrid_crosses_snr_one_between_steps_76_and_77() -> None:
    process = process_under(StandardProcess, "hybrid")
    assert process.log_snr(76) > 0 > process.log_snr(77)
    assert float(process.level(1000).alpha) == pytest.approx(6e-96, rel=0.1)


def test_median_hybrid_log_snr_rises_at_499_of_999_steps() -> None:
    rises = median("hybrid").log_snr(torch.arange(1, 1001)).diff() > 0
    assert (int(rises.sum()), len(rises)) == (499, 999)


def test_median_hybrid_is_walked_two_steps_at_a_time() -> None:
    axis = median("hybrid").axis(FLOOR)
    assert isinstance(axis, DiscreteAxis)
    strides = axis.steps.diff()
    assert strides.max() <= 3  # 3 once, where the two curves cross
    assert (strides == 2).sum() >= len(strides) - 2


@every_noise
def test_midpoint_then_two_steps_back_is_the_conditional_of_two_steps(noise: str) -> None:
    """x_t -> u_{t-1} -> x_{t-2} equals x_t -> x_{t-2}, in mean and variance.

    x_{t-2} | u_{t-1}, x_0 is written out here from the covariance tables.
    """
    process = median(noise, 20)
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    for t in range(2, 21):
        near, far = t - 1, t - 2
        variance_u = (
            float(
                process.covariance(near, near)
                + 2 * process.covariance(near, far)
                + process.covariance(far, far)
            )
            / 4
        )
        if variance_u == 0:  # no noise yet: everything is x_0
            continue
        alpha_far = float(process.level(far).alpha)
        alpha_u = (float(process.level(near).alpha) + alpha_far) / 2
        variance_far = float(process.covariance(far, far))
        covariance = (float(process.covariance(near, far)) + variance_far) / 2
        gain = covariance / variance_u
        for x_0, x_t in ((one, zero), (zero, one)):
            u_mean, u_std = process.to_origin(t).at(x_0, x_t)
            mean = alpha_far * x_0 + gain * (u_mean - alpha_u * x_0)
            variance = variance_far - gain * covariance + gain**2 * u_std.square()
            expected_mean, expected_std = process.condition(x_0, x_t, far, t)
            # Differences of numbers of order one with errors of 1e-16 times gain, at most 2.
            torch.testing.assert_close(mean, expected_mean, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(variance, expected_std.square(), rtol=1e-11, atol=1e-14)


@every_noise
def test_midpoint_is_the_ddpm_posterior_with_u_in_the_place_of_x(noise: str) -> None:
    """Gain r Var(u) / sigma_t^2 and variance Var(u) beta_t / sigma_t^2, with Var(u) from the table
    of covariances.
    """
    process = median(noise, 20)
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    for t in range(2, 21):
        beta = float(process.schedule.betas()[t - 1])
        pair = torch.tensor([t - 1, t - 2])
        variance_t = float(process.covariance(t, t))
        variance_u = float(process.covariance(pair[:, None], pair).mean())
        gain, std = process.to_origin(t).at(zero, one)
        expected = (1 - beta) ** 0.5 * variance_u / variance_t
        assert float(gain) == pytest.approx(expected, rel=1e-11, abs=1e-13)
        assert float(std**2) == pytest.approx(variance_u * beta / variance_t, rel=1e-11, abs=1e-13)


def test_the_midpoint_of_the_first_step_is_data() -> None:
    x_0, x_t = torch.tensor([[0.3]]), torch.tensor([[2.0]])
    mean, std = median("linear", 20).to_origin(1).at(x_0, x_t)
    assert torch.equal(mean, x_0)
    assert (std == 0).all()
