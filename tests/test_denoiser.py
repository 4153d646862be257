"""The denoiser's contract with its network, its process and its callers."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import MAX_LOG_SNR, Denoiser
from ddpm_lightning.processes.base import GaussianProcess
from tests.problems import PROCESSES, FixedOutput, build, options

SHAPE = (4, 1, 2, 3, 3)

every_process = pytest.mark.parametrize("process_type", PROCESSES)
every_noise = pytest.mark.parametrize("noise", options("noise"))
every_objective = pytest.mark.parametrize("objective", options("objective"))


def make(process: GaussianProcess, objective: str = "velocity", data_std: float = 0.5) -> Denoiser:
    """With a network that answers 0.3 and keeps what it saw."""
    return Denoiser(FixedOutput(0.3), process, build("objective", objective), data_std)


def normal(*shape: int) -> Tensor:
    """Seed 0, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@every_noise
@every_process
def test_network_sees_log_snr_held_within_its_bounds(process_type: type, noise: str) -> None:
    process = process_type(build("noise", noise))
    denoiser = make(process)
    t = torch.arange(process.num_steps + 1)
    denoiser.denoise(normal(len(t), 1, 1, 1, 1), t)
    seen = denoiser.network.log_snr
    assert seen.shape == t.shape
    expected = process.log_snr(t).clamp(-MAX_LOG_SNR, MAX_LOG_SNR).float()
    torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-6)  # float32
    assert seen.abs().max() <= MAX_LOG_SNR * (1 + 1e-6)


@every_noise
@every_process
@pytest.mark.parametrize("data_std", [0.2, 1.0])
def test_network_sees_inputs_of_unit_variance(
    process_type: type, noise: str, data_std: float
) -> None:
    """Seed 0; the variance of n normals has a standard error of sqrt(2 / n)."""
    process = process_type(build("noise", noise))
    denoiser = make(process, data_std=data_std)
    num_values = 40_000
    x_0, e = normal(2, 1, 1, 1, 200, 200)
    for t in (1, 250, 500, 1000):
        denoiser.denoise(process.diffuse(data_std * x_0, t, e), t)
        assert float(denoiser.network.x.var()) == pytest.approx(1, abs=5 * (2 / num_values) ** 0.5)


@every_objective
def test_loss_and_denoise_show_the_network_the_same_input(objective: str) -> None:
    process = PROCESSES[1](build("noise", "hybrid"))
    denoiser = make(process, objective)
    x_0, e = normal(2, *SHAPE)
    t = torch.tensor([1, 77, 500, 1000])
    denoiser.loss(x_0, t, e)
    x, log_snr = denoiser.network.x, denoiser.network.log_snr
    denoiser.denoise(process.diffuse(x_0, t, e), t)
    assert torch.equal(x, denoiser.network.x)
    assert torch.equal(log_snr, denoiser.network.log_snr)


@every_objective
@every_process
def test_a_step_may_be_an_integer_or_a_tensor(process_type: type, objective: str) -> None:
    denoiser = make(process_type(build("noise", "cosine")), objective)
    x = normal(*SHAPE)
    for t in (0, 1, 500, 1000):
        expected = denoiser.denoise(x, t)
        assert torch.equal(denoiser.denoise(x, torch.tensor(t)), expected)
        assert torch.equal(denoiser.denoise(x, torch.full((4,), t)), expected)


@every_objective
@every_process
def test_denoise_is_denoise_at_the_marginals(process_type: type, objective: str) -> None:
    process = process_type(build("noise", "hybrid"))
    denoiser = make(process, objective)
    x, t = normal(*SHAPE), torch.tensor([1, 77, 500, 1000])
    assert torch.equal(denoiser.denoise(x, t), denoiser.denoise_at(x, *process.marginal(t)))


@every_objective
@every_noise
@every_process
def test_squared_error_per_loss_turns_the_loss_into_the_error_of_the_estimate(
    process_type: type, noise: str, objective: str
) -> None:
    process = process_type(build("noise", noise))
    denoiser = make(process, objective)
    x_0, e = normal(2, *SHAPE).double()
    t = torch.tensor([1, 60, 400, 1000])
    error = (denoiser.denoise(process.diffuse(x_0, t, e), t) - x_0).square().flatten(1).mean(1)
    predicted = denoiser.loss(x_0, t, e) * denoiser.squared_error_per_loss(t)
    # Coefficients of up to exp(10) cancel in the estimate: 2e4 x 1e-16 of an error of order 1e-3.
    torch.testing.assert_close(predicted, error, rtol=1e-8, atol=1e-12)


@every_objective
@every_noise
@every_process
def test_estimates_are_finite_in_float32_at_every_step(
    process_type: type, noise: str, objective: str
) -> None:
    process = process_type(build("noise", noise))
    t = torch.arange(process.num_steps + 1)
    assert make(process, objective).denoise(normal(len(t), 1, 1, 1, 1), t).isfinite().all()


def test_gradients_reach_the_network() -> None:
    process = PROCESSES[0](build("noise", "linear"))
    output = torch.zeros(SHAPE, requires_grad=True)
    denoiser = Denoiser(FixedOutput(output), process, build("objective", "velocity"), 0.5)
    x_0, e = normal(2, *SHAPE)
    denoiser.loss(x_0, torch.full((4,), 500), e).sum().backward()
    assert output.grad is not None
    assert output.grad.abs().min() > 0


@pytest.mark.parametrize("data_std", [0.0, -1.0])
def test_data_without_spread_is_refused(data_std: float) -> None:
    with pytest.raises(ValueError, match="data_std must be positive"):
        make(PROCESSES[0](build("noise", "linear", num_steps=2)), data_std=data_std)
