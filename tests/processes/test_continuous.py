"""Continuous processes: their SDEs, marginals and conditionals at real t; the chain of the
variance-preserving one.
"""

import math

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.continuous import ContinuousProcess, VariancePreservingProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import CONTINUOUS, FLOOR, Betas, build, every_noise, process_under

CLOSED_FORMS = ["cosine", "linear"]

every_process = pytest.mark.parametrize("process_type", CONTINUOUS)


def process_of(noise: str, num_steps: int = 1000) -> VariancePreservingProcess:
    process = process_under(VariancePreservingProcess, noise, num_steps)
    assert isinstance(process, VariancePreservingProcess)
    return process


def real_times(num_steps: int) -> Tensor:
    """(200,) within (0, T], not whole; seed 0."""
    generator = torch.Generator().manual_seed(0)
    return num_steps * (1 - torch.rand(200, generator=generator, dtype=torch.float64))


def linear_beta(t: float, num_steps: int) -> float:
    return 1000 / num_steps * (1e-4 + (0.02 - 1e-4) * t / num_steps)


def cosine_beta(t: float, num_steps: int) -> float:
    """-2 d log alpha / dt of the curve."""
    rate = math.pi / 2 / (1.008 * num_steps)
    return 2 * rate * math.tan((t / num_steps + 0.008) / 1.008 * math.pi / 2)


@pytest.mark.parametrize("noise", CLOSED_FORMS)
def test_marginals_agree_with_the_sde_simulated_in_fine_steps(
    noise: str, generator: torch.Generator
) -> None:
    """dx = -beta x / 2 dt + sqrt(beta) dw, 600 Euler-Maruyama steps to t = 0.6 T, 5,000 paths.

    Steps of beta dt < 0.02 are wrong by (beta dt)^2 / 8 each: together 1e-3 of alpha and sigma,
    well below the standard errors of 0.014.
    """
    beta = {"linear": linear_beta, "cosine": cosine_beta}[noise]
    num_steps, num_paths, x_0 = 10, 5_000, 0.7
    process = process_of(noise, num_steps)
    x = torch.full((num_paths,), x_0, dtype=torch.float64)
    dt, seen = num_steps / 1000, {}
    for i in range(600):
        if i in (100, 300):
            seen[i * dt] = x.clone()
        step = beta(i * dt, num_steps) * dt
        x = x * (1 - step / 2)
        x += step**0.5 * torch.randn(num_paths, dtype=torch.float64, generator=generator)
    seen[600 * dt] = x
    error = num_paths**-0.5
    for t, values in seen.items():
        alpha, sigma = map(float, process.level(t)[:2])
        assert abs(float(values.mean()) - alpha * x_0) < 5 * sigma * error
        assert abs(float(values.var()) - sigma**2) < 5 * sigma**2 * (2**0.5 * error)
    for s, t in ((1.0, 3.0), (3.0, 6.0), (1.0, 6.0)):
        joint = torch.stack([seen[s], seen[t]]).cov()
        covariance = float(process.covariance(s, t))
        spread = (float(joint[0, 0] * joint[1, 1]) + covariance**2) ** 0.5
        assert abs(float(joint[0, 1]) - covariance) < 5 * spread * error


@pytest.mark.parametrize("num_steps", [7, 1000])
def test_linear_marginals_are_those_of_song_et_al(num_steps: int) -> None:
    """Eq. 33 with beta_min = 0.1, beta_max = 20 on the unit interval:
    alpha = exp(-x^2 (beta_max - beta_min) / 4 - x beta_min / 2), sigma^2 = 1 - alpha^2.
    """
    t = real_times(num_steps)
    x = t / num_steps
    log_alpha = -x.square() * (20 - 0.1) / 4 - x * 0.1 / 2
    alpha, sigma, _ = process_of("linear", num_steps).level(t)
    torch.testing.assert_close(alpha, log_alpha.exp(), rtol=1e-13, atol=0)
    variance = -torch.expm1(2 * log_alpha)
    torch.testing.assert_close(sigma.square(), variance, rtol=1e-13, atol=0)


@every_noise
def test_variance_is_preserved_at_every_time(noise: str) -> None:
    alpha, sigma, _ = process_of(noise).level(real_times(1000))
    assert alpha.dtype == sigma.dtype == torch.float64
    one = torch.ones_like(alpha)
    torch.testing.assert_close(alpha.square() + sigma.square(), one, rtol=1e-14, atol=0)


@every_process
def test_covariance_is_the_decay_of_the_variance_so_far(
    process_type: type[ContinuousProcess],
) -> None:
    """C[s, t] = alpha_t / alpha_s sigma_s^2 for s <= t, in either order of arguments."""
    process = process_under(process_type, "hybrid", 50)
    s, t = real_times(50).reshape(2, 100).sort(0).values
    (alpha_s, sigma_s, _), alpha_t = process.level(s), process.level(t).alpha
    expected = alpha_t / alpha_s * sigma_s.square()
    # alpha falls to 1e-18, as the exponential of a logarithm near -40
    torch.testing.assert_close(process.covariance(s, t), expected, rtol=1e-13, atol=1e-16)
    assert torch.equal(process.covariance(s, t), process.covariance(t, s))
    variance = process.covariance(t, t)
    torch.testing.assert_close(variance, process.level(t).sigma.square(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("noise", ["hybrid", "sigmoid"])  # neither has a closed form
def test_at_whole_times_it_is_the_standard_chain(noise: str) -> None:
    """At those that noise follows; steps of beta = 0, which hybrid alone has, are passed over."""
    for num_steps in (1, 2, 3, 50, 1000):
        process = process_of(noise, num_steps)
        chain = process_under(StandardProcess, noise, num_steps)
        followed = torch.cat([chain.schedule.betas() > 0, torch.ones(1, dtype=torch.bool)])
        assert followed.all() or noise == "hybrid"
        t = followed.nonzero().flatten()
        (alpha, sigma, _), (alpha_chain, sigma_chain, _) = process.level(t), chain.level(t)
        # alpha of hybrid falls to 6e-96: the exponential of -219 from 1000 terms, each rounded.
        torch.testing.assert_close(alpha, alpha_chain, rtol=1e-12, atol=0)
        torch.testing.assert_close(sigma, sigma_chain, rtol=1e-12, atol=0)
        if num_steps < 1000:
            covariance, expected = (p.covariance(t[:, None], t) for p in (process, chain))
            torch.testing.assert_close(covariance, expected, rtol=1e-11, atol=1e-300)


def test_cosine_is_close_to_its_chain_before_the_clipped_last_step() -> None:
    """Equal, that is: the chain is made from the same curve."""
    t = torch.arange(1, 1000)
    gap = process_of("cosine").log_snr(t) - process_under(StandardProcess, "cosine").log_snr(t)
    assert gap.abs().max() < 1e-10


def test_linear_is_close_to_its_chain_to_first_order_in_the_steps() -> None:
    """log-SNR differs most at t = 1, by log(1 + 1 / 10): beta has risen by a tenth of 1e-4 on
    average; by t = 100, where SNR is still 8, it has come down to 0.008.
    """
    t = torch.arange(1, 1001)
    gap = process_of("linear").log_snr(t) - process_under(StandardProcess, "linear").log_snr(t)
    assert float(gap[0]) == pytest.approx(-math.log(1.0995), abs=1e-3)
    assert gap.abs().argmax() == 0
    assert gap[99:].abs().max() < 0.08
    assert float(gap[99].abs()) < 0.02


@every_process
def test_conditionals_hold_between_real_times(process_type: type[ContinuousProcess]) -> None:
    """x_s after x_t has the marginal of x_s, and x_r after both is x_r after x_t: the process is
    Markov; r < s < t, none of them whole.
    """
    for num_steps in (1, 2, 1000):
        process = process_under(process_type, "hybrid", num_steps)
        r, s, t = real_times(num_steps)[:198].reshape(3, 66).sort(0).values
        step, further, direct = (
            process.conditional(s, t),
            process.conditional(r, s),
            process.conditional(r, t),
        )
        (alpha_s, sigma_s, _), (alpha_t, sigma_t, _) = process.level(s), process.level(t)
        mean = step.of_x_t * alpha_t + step.of_x_0
        torch.testing.assert_close(mean, alpha_s, rtol=1e-12, atol=1e-14)
        total = (step.of_x_t * sigma_t).square() + step.variance
        torch.testing.assert_close(total, sigma_s.square(), rtol=1e-12, atol=1e-14)
        of_x_t = further.of_x_t * step.of_x_t
        of_x_0 = further.of_x_t * step.of_x_0 + further.of_x_0
        variance = further.of_x_t.square() * step.variance + further.variance
        torch.testing.assert_close(of_x_t, direct.of_x_t, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(of_x_0, direct.of_x_0, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(variance, direct.variance, rtol=1e-11, atol=1e-14)


@every_process
def test_log_snr_falls_strictly_and_finitely_along_the_axis(
    process_type: type[ContinuousProcess],
) -> None:
    for num_steps in (1, 2, 1000):
        process = process_under(process_type, "hybrid", num_steps)
        axis = process.axis(FLOOR)
        t = torch.linspace(axis.first, axis.last, 500, dtype=torch.float64)
        log_snr = process.log_snr(t)
        assert log_snr.isfinite().all()
        assert (log_snr.diff() < 0).all()
        assert axis.last == num_steps or float(log_snr[-1]) == pytest.approx(FLOOR, abs=1e-6)
        assert log_snr[-1] >= FLOOR - 1e-6


def test_informative_times_are_uniform_over_the_axis() -> None:
    process = process_of("cosine")
    fraction = torch.tensor([0.0, 0.25, 0.5, 1 - 1e-9], dtype=torch.float64)
    expected = (1 - fraction) * process.axis(FLOOR).last
    torch.testing.assert_close(
        process.informative_time(fraction, FLOOR), expected, rtol=1e-15, atol=1e-12
    )


def test_first_steps_without_noise_leave_no_infinite_log_snr_behind() -> None:
    process = VariancePreservingProcess(Betas([0.0, 0.0, 0.3, 0.9]))
    assert process.log_snr(process.axis(FLOOR).first) < float("inf")


@every_process
def test_a_schedule_without_noise_is_refused(process_type: type[ContinuousProcess]) -> None:
    for num_steps in (1, 5):
        with pytest.raises(ValueError, match="adds no noise at any step"):
            process_type(Betas([0.0] * num_steps))


def test_integer_float32_and_plain_times_are_all_the_same_real_time() -> None:
    process = VariancePreservingProcess(build("noise", "sigmoid", num_steps=10))
    expected = process.level(torch.tensor(7.0, dtype=torch.float64))
    for t in (7, 7.0, torch.tensor(7), torch.tensor(7.0)):
        assert process.level(t) == expected
