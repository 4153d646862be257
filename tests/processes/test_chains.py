"""Autoregressive chains: tables follow from the definition; covariances only where asked for."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess, sum_of
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import (
    FLOOR,
    Betas,
    ThirdOrderProcess,
    build,
    every_chain,
    every_noise,
    process_under,
)


@pytest.mark.parametrize(
    ("process_type", "shares"),
    [(StandardProcess, [1.0]), (MedianProcess, [0.5, 0.5]), (ThirdOrderProcess, [0.5, 0.3, 0.2])],
)
def test_weights_are_shares_of_what_a_step_keeps(
    process_type: type[AutoregressiveProcess], shares: list[float]
) -> None:
    betas, weights = definition(process_under(process_type, "linear", 20))
    expected = (1 - betas).sqrt()[:, None] * torch.tensor(shares, dtype=torch.float64)
    assert torch.equal(weights, expected)


def definition(process: GaussianProcess) -> tuple[Tensor, Tensor]:
    """betas (T,) and weights (T, p)."""
    assert isinstance(process, AutoregressiveProcess)
    betas = process.schedule.betas()
    return betas, process.weights((1 - betas).sqrt())


def simulate(
    process: GaussianProcess, x_0: float, num_chains: int, generator: torch.Generator
) -> Tensor:
    """(T + 1, num_chains) of x_t = sum_k w_{t,k} x_{t-k} + sqrt(beta_t) e_t."""
    betas, weights = definition(process)
    order = weights.shape[1]
    chain = [torch.full((num_chains,), x_0, dtype=torch.float64)] * order
    for beta, row in zip(betas.tolist(), weights.tolist(), strict=True):
        mean = sum(w * chain[-k] for k, w in enumerate(row, start=1))
        noise = torch.randn(num_chains, dtype=torch.float64, generator=generator)
        chain.append(mean + beta**0.5 * noise)
    return torch.stack(chain[order - 1 :])


@every_noise
@every_chain
def test_tables_agree_with_chains_simulated_from_the_definition(
    process_type: type[AutoregressiveProcess], noise: str, generator: torch.Generator
) -> None:
    num_steps, num_chains, x_0 = 8, 50_000, 0.7
    process = process_under(process_type, noise, num_steps)
    chain = simulate(process, x_0, num_chains, generator)
    t = torch.arange(num_steps + 1)
    alpha, sigma, _ = process.level(t)
    expected = process.covariance(t[:, None], t)
    # Standard errors of a mean, sigma / sqrt(n), and of a covariance of Gaussians.
    mean_error = sigma / num_chains**0.5
    variance = sigma.square()
    covariance_error = ((variance[:, None] * variance + expected.square()) / num_chains).sqrt()
    assert ((chain.mean(1) - alpha * x_0).abs() <= 5 * mean_error + 1e-15).all()
    assert ((chain.cov() - expected).abs() <= 5 * covariance_error + 1e-15).all()


def exact_tables(process: GaussianProcess) -> tuple[Tensor, Tensor]:
    """alpha and C as one linear map of the noises: x = A x_0 + B e, C = B B'."""
    betas, weights = definition(process)
    num_steps, order = weights.shape
    rows = [torch.zeros(num_steps + 1, dtype=torch.float64) for _ in range(order)]
    for row in rows:
        row[0] = 1  # of x_0; the others are of the noises e_1 .. e_T
    for t, beta in enumerate(betas.tolist(), start=1):
        row = sum_of(w * rows[-k] for k, w in enumerate(weights[t - 1], start=1))
        row[t] = beta**0.5
        rows.append(row)
    table = torch.stack(rows[order - 1 :])
    return table[:, 0], table[:, 1:] @ table[:, 1:].T


@every_noise
@every_chain
def test_tables_are_those_of_the_chain_written_as_a_map_of_its_noises(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    for num_steps in (1, 2, 3, 50):
        process = process_under(process_type, noise, num_steps)
        alpha, covariance = exact_tables(process)
        t = torch.arange(num_steps + 1)
        torch.testing.assert_close(process.level(t).alpha, alpha, rtol=1e-13, atol=0)
        torch.testing.assert_close(
            process.level(t).sigma.square(), covariance.diagonal(), rtol=1e-13, atol=1e-16
        )
        torch.testing.assert_close(
            process.covariance(t[:, None], t), covariance, rtol=1e-12, atol=1e-16
        )


def test_a_third_order_chain_follows_its_recursion() -> None:
    process = process_under(ThirdOrderProcess, "linear", 20)
    assert process.memory == 3
    r = (1 - process.schedule.betas()).sqrt().tolist()
    alpha = [1.0, 1.0, 1.0]
    for r_t in r:
        alpha.append(r_t * (0.5 * alpha[-1] + 0.3 * alpha[-2] + 0.2 * alpha[-3]))
    expected = torch.tensor(alpha[2:], dtype=torch.float64)
    actual = process.level(torch.arange(21)).alpha
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)


@every_noise
def test_standard_tables_are_cumulative_products(noise: str) -> None:
    process = process_under(StandardProcess, noise)
    alpha = process.level(torch.arange(1001)).alpha
    products = (1 - process.schedule.betas()).sqrt().cumprod(0)
    expected = torch.cat([torch.ones(1).double(), products])
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=0)  # 1000 factors of 2e-16


@every_noise
def test_standard_process_preserves_variance(noise: str) -> None:
    process = process_under(StandardProcess, noise)
    alpha, sigma, _ = process.level(torch.arange(1001))
    one = torch.ones_like(alpha)
    torch.testing.assert_close(alpha.square() + sigma.square(), one, rtol=1e-13, atol=0)


@every_noise
def test_condition_is_the_textbook_posterior_of_the_standard_process(noise: str) -> None:
    """Ho et al. 2020, eq. 6-7; seed 0."""
    process = process_under(StandardProcess, noise, 50)
    betas = process.schedule.betas()
    # From the logarithm: 1 - abar loses five digits where betas are 4e-6 (karras).
    log_abar = torch.cat([torch.zeros(1).double(), torch.log1p(-betas).cumsum(0)])
    abar, noise_left = log_abar.exp(), -torch.expm1(log_abar)
    x_0, x_t = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)).double()
    t = torch.arange(1, 51)
    mean, std = process.condition(x_0, x_t, t - 1, t)
    of_x_0 = abar[t - 1].sqrt() * betas / noise_left[t]
    of_x_t = (1 - betas).sqrt() * noise_left[t - 1] / noise_left[t]
    expected = of_x_0[:, None] * x_0 + of_x_t[:, None] * x_t
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    # std is the root of a difference.
    variance = noise_left[t - 1] / noise_left[t] * betas
    torch.testing.assert_close(std.flatten().square(), variance, rtol=1e-12, atol=1e-14)
    upper = process.upper_variance(t - 1, t)
    torch.testing.assert_close(upper, betas, rtol=1e-12, atol=1e-14)  # Ho et al. 2020, sec. 3.2


@every_chain
def test_a_chain_that_has_added_no_noise_is_its_data(
    process_type: type[AutoregressiveProcess],
) -> None:
    process = process_type(Betas([0.0, 0.0, 0.5]))
    x = torch.full((1, 1), 0.3).double()
    for s, t in ((0, 1), (1, 2), (0, 2), (2, 3)):
        mean, std = process.condition(x, x, s, t)
        assert torch.equal(mean, x)
        assert (std == 0).all()


@every_noise
@every_chain
def test_informative_time_takes_every_usable_step_equally_often(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    for num_steps in (1, 2, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        steps = process.axis(FLOOR).steps  # type: ignore[attr-defined]
        fraction = (torch.arange(3 * len(steps)) + 0.5) / (3 * len(steps))
        t = process.informative_time(fraction, FLOOR)
        assert torch.equal(t, steps.repeat_interleave(3))


@every_chain
def test_training_never_asks_for_a_table_of_covariances(
    process_type: type[AutoregressiveProcess],
) -> None:
    """128 MB at 4000 steps."""
    process = process_type(build("noise", "hybrid", num_steps=4000))
    t = torch.arange(4001)
    process.level(t)
    process.log_snr(t)
    process.informative_time(torch.rand(8, dtype=torch.float64), FLOOR)
    process.diffuse(torch.zeros(2, 1), torch.tensor([1, 4000]), torch.zeros(2, 1))
    _ = process.axis(FLOOR), process.prior_std
    assert "_covariances" not in vars(process)


@every_chain
def test_covariances_are_made_once(process_type: type[AutoregressiveProcess]) -> None:
    process = process_type(build("noise", "linear", num_steps=20))
    assert "_covariances" not in vars(process)
    process.conditional(3, 7)
    table = vars(process)["_covariances"]
    assert table.shape == (21, 21)
    process.upper_variance(3, 9)
    assert vars(process)["_covariances"] is table


@pytest.mark.parametrize("shape", [(5,), (4, 2), (6, 1), (5, 0), (5, 1, 1)])
def test_weights_of_another_shape_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    class Misshapen(AutoregressiveProcess):
        def weights(self, r: Tensor) -> Tensor:
            return torch.ones(shape, dtype=torch.float64)

    with pytest.raises(ValueError, match=r"weights must be \(T, p\) with T = 5, got") as error:
        Misshapen(Betas([0.1] * 5))
    assert str(error.value).endswith(str(shape))
