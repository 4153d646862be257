"""Laws of every objective: scales of targets, and the known formulas of each."""

from itertools import product

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR, Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import EXAMPLES, FixedOutput, build, every_example, options, process_under

SHAPE = (4, 1, 2, 3, 3)

every_objective = pytest.mark.parametrize("objective", options("objective"))


def denoiser(process: GaussianProcess, objective: str, output: Tensor | float) -> Denoiser:
    """With a network that returns output, whatever it sees."""
    return Denoiser(FixedOutput(output), process, build("objective", objective))


def data_and_noise(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Clips of standard deviation 0.5, and noise; seed 0."""
    x_0, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return 0.5 * x_0, noise


@every_objective
def test_loss_of_an_ignorant_network_is_of_order_one(objective: str) -> None:
    """Targets are noise, data or a mean of both, so that float32 holds them at every step.

    Seed 0; the mean of 18 squared normals exceeds 4 once in 1e7.
    """
    x_0, e = data_and_noise(torch.float32)
    for (process_type, noise), num_steps in product(EXAMPLES, (2, 50, 1000)):
        process = process_under(process_type, noise, num_steps)
        ignorant = denoiser(process, objective, 0.0)
        for t in (1, num_steps // 2, num_steps):
            loss = ignorant.loss(x_0, process.level(torch.full((4,), t)), e)
            assert loss.dtype == torch.float32
            assert loss.isfinite().all()
            assert (loss < 4).all()


@every_objective
def test_loss_is_per_sample(objective: str) -> None:
    process = process_under(StandardProcess, "linear")
    x_0, e = data_and_noise()
    t = torch.tensor([1, 10, 400, 1000])
    together = denoiser(process, objective, 0.3).loss(x_0, process.level(t), e)
    assert together.shape == (4,)
    for i in range(4):
        alone = denoiser(process, objective, 0.3).loss(
            x_0[i : i + 1], process.level(t[i : i + 1]), e[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-14, atol=0)


@every_objective
def test_coefficients_are_finite_and_float64_and_the_output_always_counts(objective: str) -> None:
    """Below log-SNR -40 the denoiser holds alpha."""
    process = process_under(MedianProcess, "hybrid")
    t = torch.arange(1, 1001)
    alpha, sigma, _ = process.level(t[process.log_snr(t) > -MAX_LOG_SNR])
    c_skip, c_out = build("objective", objective).scaling(Level.of(alpha, sigma))
    assert c_skip.dtype == c_out.dtype == torch.float64
    assert c_skip.shape == c_out.shape == alpha.shape
    assert c_skip.isfinite().all()
    assert (c_out.abs() > 0).all()


@every_example
def test_velocity_on_a_variance_preserving_scale_has_unit_coefficients(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """c_skip^2 n + c_out^2 = 1 for every alpha, sigma: a rotation of (x_t / sqrt(n), v)."""
    alpha, sigma, _ = process_under(process_type, noise).level(torch.arange(1, 1001))
    c_skip, c_out = build("objective", "velocity").scaling(Level.of(alpha, sigma))
    one = c_skip.square() * (alpha.square() + sigma.square()) + c_out.square()
    torch.testing.assert_close(one, torch.ones_like(one), rtol=1e-14, atol=0)


def loss_of(objective: str, process: GaussianProcess) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss of a random output at |log-SNR| < 20; that output, x_0 and the noise."""
    x_0, e = data_and_noise()
    output = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).double()
    t = torch.tensor([5, 60, 200, 400])
    assert (process.log_snr(t).abs() < 20).all()
    return denoiser(process, objective, output).loss(x_0, process.level(t), e), output, x_0, e


@every_example
def test_epsilon_loss_is_the_plain_error_of_the_noise(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """Seed 1 for the network's output; within |log-SNR| < 20 nothing is held."""
    loss, output, _, e = loss_of("epsilon", process_under(process_type, noise))
    expected = (output - e).square().flatten(1).mean(1)
    # (1 - c_skip alpha) / c_out is 0 up to 1e-16 alpha / sigma.
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@every_example
def test_flow_predicts_the_direction_from_data_to_noise(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """The loss is the plain error of noise - x_0 at any scale of x; seed 1 for the output."""
    loss, output, x_0, e = loss_of("flow", process_under(process_type, noise))
    expected = (output - (e - x_0)).square().flatten(1).mean(1)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_flow_loss_weighs_the_middle_levels_twice_as_much_as_velocity_does() -> None:
    """(alpha + sigma)^2 / n for the same estimate of x_0: 1 at both ends, 2 at log-SNR 0."""
    level = Level.at(torch.linspace(-30, 30, 61, dtype=torch.float64))
    flow, velocity = (
        build("objective", name).scaling(level).c_out for name in ("flow", "velocity")
    )
    weight = (velocity / flow).square()
    assert weight.argmax() == 30
    assert weight[[0, 30, 60]].tolist() == pytest.approx([1, 2, 1], abs=1e-6)


def test_karras_is_edm_preconditioning_where_alpha_is_1() -> None:
    """Karras et al. 2022, table 1: c_skip = s_d^2 / (s^2 + s_d^2), c_out = s s_d / sqrt(s_d^2 +
    s^2), s_d = 1/2.
    """
    s = torch.logspace(-3, 2, 50, dtype=torch.float64)
    objective = build("objective", "karras")
    c_skip, c_out = objective.scaling(Level.of(torch.ones_like(s), s))
    torch.testing.assert_close(c_skip, 0.25 / (s**2 + 0.25), rtol=1e-14, atol=0)
    expected = s / 2 / (s**2 + 0.25).sqrt()
    torch.testing.assert_close(c_out, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [0.1, 0.8, 3.0])
def test_karras_does_not_depend_on_the_scale_of_x(scale: float) -> None:
    """(alpha, sigma) times a number, x times it too: the same estimate from the same output."""
    s = torch.logspace(-3, 2, 50, dtype=torch.float64)
    objective = build("objective", "karras")
    unit = objective.scaling(Level.of(torch.ones_like(s), s))
    scaled = objective.scaling(Level.of(scale * torch.ones_like(s), scale * s))
    torch.testing.assert_close(scaled.c_skip * scale, unit.c_skip, rtol=1e-14, atol=0)
    torch.testing.assert_close(scaled.c_out, unit.c_out, rtol=1e-14, atol=0)


def test_karras_targets_have_unit_variance_at_every_noise_level(
    generator: torch.Generator,
) -> None:
    """For data of standard deviation s_d; the variance of n normals is within sqrt(2 / n) of 1."""
    process = process_under(MedianProcess, "linear")
    x_0, e = torch.randn(2, 10, 4000, generator=generator, dtype=torch.float64)
    t = torch.linspace(1, 1000, 10).long()
    loss = denoiser(process, "karras", 0.0).loss(0.5 * x_0, process.level(t), e)
    assert (loss - 1).abs().max() < 5 * (2 / 4000) ** 0.5
