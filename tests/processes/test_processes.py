"""Laws of both processes under every noise schedule, and the known facts about each."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import PROCESSES, Betas, build, options

every_process = pytest.mark.parametrize("process_type", PROCESSES)
every_noise = pytest.mark.parametrize("noise", options("noise"))


class ThirdOrderProcess(AutoregressiveProcess):
    """What a user would write: an AR(3) chain."""

    def weights(self, r: Tensor) -> Tensor:
        return r[:, None] * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def steps(process: GaussianProcess) -> Tensor:
    return torch.arange(process.num_steps + 1)


def simulate(
    betas: Tensor, weights: Sequence[float], x_0: float, num_chains: int, generator: torch.Generator
) -> Tensor:
    """(T + 1, num_chains) of x_t = r_t sum_k weights_k x_{t-k} + sqrt(beta_t) e_t."""
    chain = [torch.full((num_chains,), x_0, dtype=torch.float64)] * len(weights)
    for beta in betas.tolist():
        mean = (1 - beta) ** 0.5 * sum(w * chain[-k] for k, w in enumerate(weights, start=1))
        noise = torch.randn(num_chains, dtype=torch.float64, generator=generator)
        chain.append(mean + beta**0.5 * noise)
    return torch.stack(chain[len(weights) - 1 :])


@every_noise
@pytest.mark.parametrize(
    ("process_type", "weights"),
    [(StandardProcess, [1.0]), (MedianProcess, [0.5, 0.5]), (ThirdOrderProcess, [0.5, 0.3, 0.2])],
)
def test_tables_agree_with_chains_simulated_from_the_definition(
    process_type: type[AutoregressiveProcess],
    weights: list[float],
    noise: str,
    generator: torch.Generator,
) -> None:
    num_steps, num_chains, x_0 = 8, 200_000, 0.7
    schedule = build("noise", noise, num_steps=num_steps)
    process = process_type(schedule)
    chain = simulate(schedule.betas(), weights, x_0, num_chains, generator)
    t = steps(process)
    alpha, sigma = process.marginal(t)
    expected = process.covariance(t[:, None], t)
    # Standard errors of a mean, sigma / sqrt(n), and of a covariance of Gaussians.
    mean_error = sigma / num_chains**0.5
    variance = sigma.square()
    covariance_error = ((variance[:, None] * variance + expected.square()) / num_chains).sqrt()
    assert ((chain.mean(1) - alpha * x_0).abs() <= 5 * mean_error + 1e-15).all()
    assert ((chain.cov() - expected).abs() <= 5 * covariance_error + 1e-15).all()


def test_a_third_order_chain_follows_its_recursion() -> None:
    schedule = build("noise", "linear", num_steps=20)
    process = ThirdOrderProcess(schedule)
    r = (1 - schedule.betas()).sqrt().tolist()
    alpha = [1.0, 1.0, 1.0]
    for r_t in r:
        alpha.append(r_t * (0.5 * alpha[-1] + 0.3 * alpha[-2] + 0.2 * alpha[-3]))
    expected = torch.tensor(alpha[2:], dtype=torch.float64)
    torch.testing.assert_close(process.marginal(steps(process)).alpha, expected, rtol=1e-14, atol=0)


@every_noise
@every_process
def test_data_is_the_chain_at_step_0(process_type: type[AutoregressiveProcess], noise: str) -> None:
    process = process_type(build("noise", noise, num_steps=10))
    assert process.marginal(0) == (1.0, 0.0)
    assert (process.covariance(0, steps(process)) == 0).all()
    assert process.log_snr(0) == float("inf")


@every_noise
@every_process
def test_tables_are_float64_and_positive_definite(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    process = process_type(build("noise", noise, num_steps=50))
    t = steps(process)
    covariance = process.covariance(t[:, None], t)
    assert covariance.dtype == process.marginal(t).alpha.dtype == torch.float64
    # The smallest eigenvalues are products of 1 - beta below round-off; 1e-14 is 50 steps of 2e-16.
    assert torch.linalg.eigvalsh(covariance).min() > -1e-14


@every_noise
def test_standard_tables_are_cumulative_products(noise: str) -> None:
    schedule = build("noise", noise)
    process = StandardProcess(schedule)
    alpha = process.marginal(steps(process)).alpha
    expected = torch.cat([torch.ones(1).double(), (1 - schedule.betas()).sqrt().cumprod(0)])
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=0)  # 1000 factors of 2e-16


@every_noise
def test_standard_process_preserves_variance(noise: str) -> None:
    process = StandardProcess(build("noise", noise))
    alpha, sigma = process.marginal(steps(process))
    one = torch.ones_like(alpha)
    torch.testing.assert_close(alpha.square() + sigma.square(), one, rtol=1e-13, atol=0)


@every_noise
def test_median_process_does_not_preserve_variance(noise: str) -> None:
    process = MedianProcess(build("noise", noise))
    alpha, sigma = process.marginal(steps(process)[2:])
    assert (alpha.square() + sigma.square() - 1).abs().max() > 0.1


def test_median_linear_ends_where_it_is_known_to() -> None:
    process = MedianProcess(build("noise", "linear", num_steps=1000))
    alpha, sigma = process.marginal(1000)
    assert float(alpha) == pytest.approx(0.0343, abs=5e-5)
    assert float(sigma.square()) == pytest.approx(0.6715, abs=5e-5)
    assert process.prior_std == float(sigma)


def test_median_variance_tends_to_two_thirds_for_small_constant_beta() -> None:
    beta = 0.01  # the limit holds to order beta; after 1500 steps exp(-10) of the start is left
    process = MedianProcess(Betas([beta] * 1500))
    assert process.prior_std**2 == pytest.approx(2 / 3, abs=beta)


def test_standard_hybrid_crosses_snr_one_between_steps_76_and_77() -> None:
    process = StandardProcess(build("noise", "hybrid", num_steps=1000))
    assert process.log_snr(76) > 0 > process.log_snr(77)
    assert float(process.marginal(1000).alpha) == pytest.approx(6e-96, rel=0.1)


def test_median_hybrid_log_snr_rises_at_499_of_999_steps() -> None:
    process = MedianProcess(build("noise", "hybrid", num_steps=1000))
    rises = process.log_snr(steps(process)[1:]).diff() > 0
    assert (int(rises.sum()), len(rises)) == (499, 999)


@every_noise
@every_process
def test_log_snr_is_that_of_the_marginal(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    process = process_type(build("noise", noise))
    alpha, sigma = process.marginal(steps(process)[1:])
    log_snr = process.log_snr(steps(process)[1:])
    torch.testing.assert_close(log_snr, 2 * (alpha / sigma).log(), rtol=1e-12, atol=1e-12)


@every_noise
@every_process
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 1000])
def test_informative_steps_end_at_the_log_snr_floor(
    process_type: type[AutoregressiveProcess], noise: str, num_steps: int
) -> None:
    process = process_type(build("noise", noise, num_steps=num_steps))
    last = process.informative_steps(floor=-12)
    assert 1 <= last <= num_steps
    assert (process.log_snr(torch.arange(last)) > -12).all()
    assert last == num_steps or process.log_snr(last) <= -12


@every_noise
def test_condition_is_the_textbook_posterior_of_the_standard_process(noise: str) -> None:
    """Ho et al. 2020, eq. 6-7; seed 0."""
    schedule = build("noise", noise, num_steps=50)
    process = StandardProcess(schedule)
    betas = schedule.betas()
    abar = torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)])
    x_0, x_t = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)).double()
    t = torch.arange(1, 51)
    mean, std = process.condition(x_0, x_t, t - 1, t)
    of_x_0 = abar[t - 1].sqrt() * betas / (1 - abar[t])
    of_x_t = (1 - betas).sqrt() * (1 - abar[t - 1]) / (1 - abar[t])
    expected = of_x_0[:, None] * x_0 + of_x_t[:, None] * x_t
    # 1 - abar loses three digits at t = 1 (abar = 0.998); std is the root of a difference.
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    variance = (1 - abar[t - 1]) / (1 - abar[t]) * betas
    torch.testing.assert_close(std.flatten().square(), variance, rtol=1e-12, atol=1e-14)


@every_noise
@every_process
def test_two_conditionals_in_a_row_have_the_law_of_the_chain(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    """x_t ~ its marginal, then x_s | x_t, x_0: mean alpha_s x_0, variance sigma_s^2; exact."""
    process = process_type(build("noise", noise, num_steps=12))
    x_0 = torch.tensor([0.7], dtype=torch.float64)
    for t in range(1, 13):
        alpha, sigma = process.marginal(t)
        for s in range(t):
            mean, std = process.condition(x_0, alpha * x_0, s, t)
            gain = process.condition(0 * x_0, torch.ones_like(x_0), s, t)[0]
            alpha_s, sigma_s = process.marginal(s)
            torch.testing.assert_close(mean, alpha_s * x_0, rtol=1e-12, atol=1e-14)
            variance = (gain * sigma).square() + std.square()
            torch.testing.assert_close(variance[0], sigma_s.square(), rtol=1e-12, atol=1e-14)


@every_noise
@every_process
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_shortest_chains_return_to_their_data(
    process_type: type[AutoregressiveProcess], noise: str, num_steps: int
) -> None:
    process = process_type(build("noise", noise, num_steps=num_steps))
    x_0, x_t = torch.tensor([[0.3]]), torch.tensor([[2.0]])
    for t in range(1, num_steps + 1):
        mean, std = process.condition(x_0, x_t, 0, t)
        assert torch.equal(mean, x_0)
        assert (std == 0).all()
        for s in range(1, t):
            assert all(value.isfinite().all() for value in process.condition(x_0, x_t, s, t))


@every_noise
def test_midpoint_then_two_steps_back_is_the_conditional_of_two_steps(noise: str) -> None:
    """x_t -> u_{t-1} -> x_{t-2} equals x_t -> x_{t-2}, in mean and variance.

    x_{t-2} | u_{t-1}, x_0 is written out here from the covariance tables.
    """
    process = MedianProcess(build("noise", noise, num_steps=20))
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
        alpha_far = float(process.marginal(far).alpha)
        alpha_u = (float(process.marginal(near).alpha) + alpha_far) / 2
        variance_far = float(process.covariance(far, far))
        covariance = (float(process.covariance(near, far)) + variance_far) / 2
        gain = covariance / variance_u
        for x_0, x_t in ((one, zero), (zero, one)):
            u_mean, u_std = process.condition_midpoint(x_0, x_t, t)
            mean = alpha_far * x_0 + gain * (u_mean - alpha_u * x_0)
            variance = variance_far - gain * covariance + gain**2 * u_std.square()
            expected_mean, expected_std = process.condition(x_0, x_t, far, t)
            # Differences of numbers of order one with errors of 1e-16 times gain, at most 2.
            torch.testing.assert_close(mean, expected_mean, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(variance, expected_std.square(), rtol=1e-11, atol=1e-14)


@every_noise
def test_midpoint_is_the_ddpm_posterior_with_u_in_the_place_of_x(noise: str) -> None:
    """Gain r Var(u) / sigma_t^2 and variance Var(u) beta_t / sigma_t^2."""
    schedule = build("noise", noise, num_steps=20)
    process = MedianProcess(schedule)
    one = torch.ones(1).double()
    for t in range(2, 21):
        beta = float(schedule.betas()[t - 1])
        variance_t = float(process.covariance(t, t))
        variance_u = (variance_t - beta) / (1 - beta)  # sigma_t^2 = r^2 Var(u) + beta_t
        gain, std = process.condition_midpoint(0 * one, one, t)
        expected = (1 - beta) ** 0.5 * variance_u / variance_t
        assert float(gain) == pytest.approx(expected, rel=1e-11, abs=1e-13)
        assert float(std**2) == pytest.approx(variance_u * beta / variance_t, rel=1e-11, abs=1e-13)


@every_process
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_results_have_the_dtype_of_x_and_coefficients_are_float64(
    process_type: type[AutoregressiveProcess], dtype: torch.dtype
) -> None:
    """One rounding to the dtype for each of the two products and their sum; seed 0."""
    process = process_type(build("noise", "hybrid"))
    x_0, x_t = torch.randn(2, 4, 1, 2, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    t = torch.tensor([2, 77, 300, 1000])
    mean, std = process.condition(x_0, x_t, t - 1, t)
    noisy = process.diffuse(x_0, t, x_t)
    assert mean.dtype == std.dtype == noisy.dtype == dtype
    exact_mean, exact_std = process.condition(x_0.double(), x_t.double(), t - 1, t)
    exact_noisy = process.diffuse(x_0.double(), t, x_t.double())
    tolerance = 4 * torch.finfo(dtype).eps
    for value, exact in ((mean, exact_mean), (std, exact_std), (noisy, exact_noisy)):
        scale = max(float(exact.abs().max()), 1.0)
        assert (value.double() - exact).abs().max() <= tolerance * 4 * scale  # |x| < 4


@every_noise
@every_process
def test_diffuse_draws_from_the_marginal(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    process = process_type(build("noise", noise))
    x_0, e = torch.full((3, 1, 2, 2, 2), 0.5).double(), torch.full((3, 1, 2, 2, 2), -1.0).double()
    t = torch.tensor([1, 500, 1000])
    alpha, sigma = process.marginal(t)
    expected = (0.5 * alpha - sigma)[:, None, None, None, None].expand_as(x_0)
    torch.testing.assert_close(process.diffuse(x_0, t, e), expected, rtol=1e-15, atol=1e-15)


@every_process
def test_steps_may_be_integers_or_tensors(process_type: type[AutoregressiveProcess]) -> None:
    process = process_type(build("noise", "linear", num_steps=10))
    x = torch.ones(2, 1, 1, 1, 1)
    for s, t in ((0, 1), (3, 7)):
        s_tensor, t_tensor = torch.tensor([s, s]), torch.tensor([t, t])
        assert torch.equal(process.diffuse(x, t, x), process.diffuse(x, t_tensor, x))
        mean, std = process.condition(x, 2 * x, s, t)
        means, stds = process.condition(x, 2 * x, s_tensor, t_tensor)
        assert torch.equal(mean, means)
        assert torch.equal(std.expand_as(x), stds.expand_as(x))


@every_process
def test_a_chain_that_has_added_no_noise_is_its_data(
    process_type: type[AutoregressiveProcess],
) -> None:
    process = process_type(Betas([0.0, 0.0, 0.5]))
    x = torch.full((1, 1), 0.3).double()
    for s, t in ((0, 1), (1, 2), (0, 2), (2, 3)):
        mean, std = process.condition(x, x, s, t)
        assert torch.equal(mean, x)
        assert (std == 0).all()
