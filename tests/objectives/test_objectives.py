"""Laws of every objective: what a perfect network gives, under every process and schedule."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.processes.base import GaussianProcess
from tests.problems import PROCESSES, FixedOutput, build, options

SHAPE = (4, 1, 2, 3, 3)

every_process = pytest.mark.parametrize("process_type", PROCESSES)
every_noise = pytest.mark.parametrize("noise", options("noise"))
every_objective = pytest.mark.parametrize("objective", options("objective"))


def denoiser(process: GaussianProcess, objective: str, output: Tensor | float) -> Denoiser:
    """With a network that returns output, whatever it sees."""
    return Denoiser(FixedOutput(output), process, build("objective", objective), data_std=0.5)


def data_and_noise(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Clips of standard deviation 0.5, and noise; seed 0."""
    x_0, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return 0.5 * x_0, noise


def all_steps(process: GaussianProcess) -> Tensor:
    """The ends, the middle, and a step in between: one for each sample of SHAPE."""
    last = process.num_steps
    return torch.tensor([1, last // 4, last // 2, last])


def perfect_output(
    process: GaussianProcess, objective: str, x_0: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The network's output for which the estimate is x_0.

    The estimate c_skip x_t + c_out F is affine in F: its values at F = 0 and F = 1 give both terms.
    """
    skip = denoiser(process, objective, 0.0).denoise(x_t, t)
    return (x_0 - skip) / (denoiser(process, objective, 1.0).denoise(x_t, t) - skip)


@every_objective
@every_noise
@every_process
def test_perfect_network_gives_the_data_and_no_loss(
    process_type: type, noise: str, objective: str
) -> None:
    """At every step, also where alpha underflows float32 (hybrid) or variance is not preserved."""
    process = process_type(build("noise", noise))
    x_0, e = data_and_noise()
    t = all_steps(process)
    x_t = process.diffuse(x_0, t, e)
    perfect = denoiser(process, objective, perfect_output(process, objective, x_0, x_t, t))
    # Coefficients reach exp(10) = 2e4, hence 2e4 x 2e-16 x a few.
    torch.testing.assert_close(perfect.denoise(x_t, t), x_0, rtol=0, atol=1e-10)
    # The target is formed from x_0 and noise in another way: it is the same target.
    torch.testing.assert_close(perfect.loss(x_0, t, e), torch.zeros(4).double(), rtol=0, atol=1e-15)


@every_objective
@every_noise
@every_process
def test_perfect_network_gives_the_data_in_float32(
    process_type: type, noise: str, objective: str
) -> None:
    process = process_type(build("noise", noise))
    x_0, e = data_and_noise()
    t = all_steps(process)
    output = perfect_output(process, objective, x_0, process.diffuse(x_0, t, e), t).float()
    x_0, e = x_0.float(), e.float()
    estimate = denoiser(process, objective, output).denoise(process.diffuse(x_0, t, e), t)
    assert estimate.dtype == torch.float32
    # Two terms of up to exp(10) |noise| = 1e5, each rounded to 6e-8, cancel.
    torch.testing.assert_close(estimate, x_0, rtol=0, atol=0.05)
    loss = denoiser(process, objective, output).loss(x_0, t, e)
    assert (loss < 1e-10).all()  # on the target's own scale nothing cancels


@every_objective
@every_noise
@every_process
@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_loss_of_an_ignorant_network_is_of_order_one(
    process_type: type, noise: str, objective: str, num_steps: int
) -> None:
    """Targets are noise, data or a mean of both, so that float32 holds them at every step.

    Seed 0; the mean of 18 squared normals exceeds 4 once in 1e7.
    """
    process = process_type(build("noise", noise, num_steps=num_steps))
    x_0, e = data_and_noise(torch.float32)
    for t in (1, num_steps // 2, num_steps):
        loss = denoiser(process, objective, 0.0).loss(x_0, torch.full((4,), t), e)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert (loss < 4).all()


@every_objective
def test_loss_is_per_sample(objective: str) -> None:
    process = PROCESSES[0](build("noise", "linear"))
    x_0, e = data_and_noise()
    t = torch.tensor([1, 10, 400, 1000])
    together = denoiser(process, objective, 0.3).loss(x_0, t, e)
    assert together.shape == (4,)
    for i in range(4):
        alone = denoiser(process, objective, 0.3).loss(x_0[i : i + 1], t[i : i + 1], e[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-14, atol=0)


@every_process
def test_targets_are_what_the_objectives_are_named_for(process_type: type) -> None:
    process = process_type(build("noise", "linear"))
    x_0, e = data_and_noise()
    t = torch.tensor([10, 100, 300, 900])
    alpha, sigma = (value.reshape(4, 1, 1, 1, 1) for value in process.marginal(t))
    targets = {
        "epsilon": e,
        "clean": x_0,
        "velocity": (alpha * e - sigma * x_0) / (alpha**2 + sigma**2).sqrt(),
    }
    x_t = process.diffuse(x_0, t, e)
    for name, target in targets.items():
        actual = perfect_output(process, name, x_0, x_t, t)
        # Divided by c_out, 0.06 at t = 10 for epsilon.
        torch.testing.assert_close(actual, target, rtol=0, atol=1e-12)


@every_process
def test_velocity_on_a_variance_preserving_scale_has_unit_coefficients(process_type: type) -> None:
    """c_skip^2 n + c_out^2 = 1 for every alpha, sigma: a rotation of (x_t / sqrt(n), v)."""
    alpha, sigma = process_type(build("noise", "cosine")).marginal(torch.arange(1, 1001))
    c_skip, c_out = build("objective", "velocity").scaling(alpha, sigma)
    one = c_skip.square() * (alpha.square() + sigma.square()) + c_out.square()
    torch.testing.assert_close(one, torch.ones_like(one), rtol=1e-14, atol=0)


@every_process
@every_noise
def test_epsilon_loss_is_the_plain_error_of_the_noise(process_type: type, noise: str) -> None:
    """Seed 1 for the network's output; within |log-SNR| < 20 nothing is held."""
    process = process_type(build("noise", noise))
    x_0, e = data_and_noise()
    output = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).double()
    t = torch.tensor([5, 60, 200, 400])
    assert (process.log_snr(t).abs() < 20).all()
    loss = denoiser(process, "epsilon", output).loss(x_0, t, e)
    expected = (output - e).square().flatten(1).mean(1)
    # (1 - c_skip alpha) / c_out is 0 up to 1e-16 alpha / sigma.
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
