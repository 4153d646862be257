"""The posterior objective predicts the mean of the reverse step, on every process."""

import math

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.objectives.epsilon import MAX_RATIO
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import (
    PROCESSES,
    FixedOutput,
    build,
    denoise,
    every_chain,
    process_under,
)

NUM_STEPS = 50

every_noise = pytest.mark.parametrize("noise", ["cosine", "hybrid"])


def problem(process: GaussianProcess) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t, and x_0, e, x_t (T, 3), one for each step; seed 0."""
    t = torch.arange(1, process.num_steps + 1)
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, len(t), 3, generator=generator, dtype=torch.float64)
    return t, x_0, e, process.diffuse(x_0, t, e)


def step_mean(process: AutoregressiveProcess, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """Return r x_t + beta / (r sigma) (F - (1 - sigma^2 - alpha^2 / n) / sigma x_t), where the
    network's output leads; the last term is 0 on the standard chain.
    """
    beta = process.schedule.betas()[t - 1][:, None]
    r = (1 - beta).sqrt()
    alpha, sigma = (value[:, None] for value in process.level(t)[:2])
    n = alpha.square() + sigma.square()
    displaced = output - (1 - sigma.square() - alpha.square() / n) / sigma * x_t
    return r * x_t + beta / (r * sigma) * displaced


def perfect_output(process: GaussianProcess, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return F = (alpha x_0 - alpha^2 / n x_t) / sigma."""
    alpha, sigma = (value[:, None] for value in process.level(t)[:2])
    return (alpha * x_0 - alpha**2 / (alpha**2 + sigma**2) * x_t) / sigma


@every_noise
@every_chain
def test_a_perfect_output_leads_to_the_mean_of_the_reverse_step(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    """That of the point that the step starts from, which is exactly process.condition to x_{t-1}
    on the standard chain.
    """
    process = process_under(process_type, noise, NUM_STEPS)
    t, x_0, _, x_t = problem(process)
    mean = step_mean(process, x_t, t, perfect_output(process, x_0, x_t, t))
    expected = process.to_origin(t).at(x_0, x_t)[0]
    # beta / (r sigma) reaches 100 where a step keeps 1e-4 of its input: 100 x 1e-16 x a few.
    r = (1 - process.schedule.betas()).sqrt()[:, None]
    assert ((mean - expected).abs() * r <= 1e-13 * x_t.abs().clamp(min=1)).all()
    if isinstance(process, StandardProcess):
        named = process.condition(x_0, x_t, t - 1, t)[0]
        torch.testing.assert_close(expected, named, rtol=1e-13, atol=1e-14)


@every_noise
@every_chain
def test_any_output_leads_to_the_reverse_step_of_the_estimate(
    process_type: type[AutoregressiveProcess], noise: str
) -> None:
    """Not only a perfect one: objective and step are two views of one estimate; seed 1."""
    process = process_under(process_type, noise, NUM_STEPS)
    t, _, _, x_t = problem(process)
    output = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1)).double()
    kept = process.log_snr(t) > -2 * math.log(MAX_RATIO)  # beyond, sigma / alpha is held
    denoiser = Denoiser(FixedOutput(output), process, build("objective", "posterior"))
    estimate = denoise(denoiser, x_t, t)
    mean = step_mean(process, x_t, t, output)
    expected = process.to_origin(t).at(estimate, x_t)[0]
    alpha = process.level(t).alpha[:, None]
    r = (1 - process.schedule.betas()).sqrt()[:, None]
    # The estimate is divided by alpha and multiplied by it again, and once more by beta / r.
    error = ((mean - expected).abs() * r)[kept]
    assert (error <= 1e-12 / alpha.clamp(min=1e-3)[kept]).all()


@pytest.mark.parametrize("process_type", PROCESSES)
def test_the_target_is_well_scaled_also_where_a_step_adds_no_noise(
    process_type: type[GaussianProcess],
) -> None:
    """Every second beta of hybrid is 0; F is -e on the standard process up to alpha terms."""
    process = process_under(process_type, "hybrid")
    t = torch.arange(1, 401)
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, 400, 50, generator=generator, dtype=torch.float64)
    denoiser = Denoiser(FixedOutput(0.0), process, build("objective", "posterior"))
    loss = denoiser.loss(0.5 * x_0, denoiser.process.level(t), e)
    assert loss.isfinite().all()
    assert (loss < 4).all()


@pytest.mark.parametrize("noise", ["linear", "cosine", "hybrid"])
def test_on_a_variance_preserving_process_the_target_is_alpha_times_the_velocity_negated(
    noise: str,
) -> None:
    """F = (alpha x_0 - alpha^2 x_t) / sigma = alpha (sigma x_0 - alpha e) = -alpha v."""
    process = process_under(StandardProcess, noise)
    t = torch.arange(1, 300)
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, len(t), 3, generator=generator, dtype=torch.float64)
    alpha, sigma = (value[:, None] for value in process.level(t)[:2])
    v = alpha * e - sigma * x_0
    output = perfect_output(process, x_0, process.diffuse(x_0, t, e), t)
    torch.testing.assert_close(output, -alpha * v, rtol=1e-10, atol=1e-11)
