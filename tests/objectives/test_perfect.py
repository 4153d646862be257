"""A perfect network in, exactly x_0 out: every objective, at the levels of unlike processes."""

from itertools import product
from math import exp, log

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR
from ddpm_lightning.objectives.epsilon import MAX_RATIO
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import EXAMPLES, FixedOutput, build, denoise, options, process_under

every_objective = pytest.mark.parametrize("objective", options("objective"))


def denoiser(process: GaussianProcess, objective: str, output: Tensor | float) -> Denoiser:
    """With a network that returns output, whatever it sees."""
    return Denoiser(FixedOutput(output), process, build("objective", objective))


def times(num_steps: int) -> Tensor:
    """1, T, and up to 30 steps between."""
    return torch.linspace(1, num_steps, 32).long().unique()


def data_and_noise(num_samples: int) -> tuple[Tensor, Tensor]:
    """Clips of standard deviation 0.5, and noise; seed 0, float64."""
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, num_samples, 1, 2, 2, 3, generator=generator, dtype=torch.float64)
    return 0.5 * x_0, e


def perfect_output(
    process: GaussianProcess, objective: str, x_0: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The network's output for which the estimate is x_0.

    The estimate c_skip x_t + c_out F is affine in F: its values at F = 0 and F = 1 give both terms.
    """
    skip = denoise(denoiser(process, objective, 0.0), x_t, t)
    return (x_0 - skip) / (denoise(denoiser(process, objective, 1.0), x_t, t) - skip)


def tolerance(process: GaussianProcess, x_0: Tensor, e: Tensor, t: Tensor, eps: float) -> Tensor:
    """Per value: 8 eps max(1, sigma / alpha) max(1, |x_0|, |e|).

    The estimate is a difference of terms of up to sigma / alpha |e|, each rounded to eps; log-SNR
    is held at -40, so that sigma / alpha counts as exp(20) at most. At most 2.4 eps was measured.
    """
    alpha, sigma, _ = process.level(t)
    ratio = (sigma / alpha).clamp(1, exp(MAX_LOG_SNR / 2)).reshape(-1, 1, 1, 1, 1)
    return 8 * eps * ratio * x_0.abs().maximum(e.abs()).clamp(min=1)


@every_objective
def test_perfect_network_gives_the_data_and_no_loss(objective: str) -> None:
    """At every step, also where alpha underflows float32 (hybrid) or variance is not preserved."""
    for (process_type, noise), num_steps in product(EXAMPLES, (1, 3, 1000)):
        process = process_under(process_type, noise, num_steps)
        t = times(num_steps)
        x_0, e = data_and_noise(len(t))
        x_t = process.diffuse(x_0, t, e)
        perfect = denoiser(process, objective, perfect_output(process, objective, x_0, x_t, t))
        error = (denoise(perfect, x_t, t) - x_0).abs()
        assert (error <= tolerance(process, x_0, e, t, torch.finfo(torch.float64).eps)).all()
        # The target is formed from x_0 and noise in another way: it is the same target. Outputs
        # have the error of the data over c_out, at least exp(-10): 1e-16 x exp(10), squared.
        assert (perfect.loss(x_0, perfect.process.level(t), e) < 1e-20).all()


@every_objective
def test_perfect_network_gives_the_data_in_float32(objective: str) -> None:
    process = process_under(MedianProcess, "hybrid")
    t = times(1000)
    x_0, e = data_and_noise(len(t))
    output = perfect_output(process, objective, x_0, process.diffuse(x_0, t, e), t).float()
    network = denoiser(process, objective, output)
    estimate = denoise(network, process.diffuse(x_0.float(), t, e.float()), t)
    assert estimate.dtype == torch.float32
    allowed = tolerance(process, x_0, e, t, torch.finfo(torch.float32).eps)
    assert ((estimate.double() - x_0).abs() <= allowed).all()
    loss = network.loss(x_0.float(), process.level(t), e.float())
    assert (loss < 1e-10).all()  # on the target's own scale nothing cancels


TARGETS = ["epsilon", "clean", "velocity", "karras", "posterior"]


def target(name: str, alpha: Tensor, sigma: Tensor, x_0: Tensor, e: Tensor) -> Tensor:
    """What each objective is named for; s_d = 0.5."""
    s_d = 0.5
    n, m = alpha**2 + sigma**2, alpha**2 * s_d**2 + sigma**2
    x_t = alpha * x_0 + sigma * e
    return {
        "epsilon": e,
        "clean": x_0,
        "velocity": (alpha * e - sigma * x_0) / n.sqrt(),
        # what the best linear estimate alpha s_d^2 / m x_t leaves over, at unit variance
        "karras": (x_0 - alpha * s_d**2 / m * x_t) * m.sqrt() / (sigma * s_d),
        "posterior": (alpha * x_0 - alpha**2 / n * x_t) / sigma,
    }[name]


@pytest.mark.parametrize("objective", TARGETS)
def test_targets_are_what_the_objectives_are_named_for(objective: str) -> None:
    """Epsilon and posterior are, above the level from which on they hold sigma / alpha."""
    process = process_under(MedianProcess, "hybrid")
    t = times(1000)
    held = -2 * log(MAX_RATIO)
    t = t[(process.log_snr(t) > held) & (process.log_snr(t) < MAX_LOG_SNR)]
    x_0, e = data_and_noise(len(t))
    alpha, sigma = (value.reshape(-1, 1, 1, 1, 1) for value in process.level(t)[:2])
    output = target(objective, alpha, sigma, x_0, e)
    perfect = denoiser(process, objective, output)
    error = (denoise(perfect, process.diffuse(x_0, t, e), t) - x_0).abs()
    assert (error <= tolerance(process, x_0, e, t, torch.finfo(torch.float64).eps)).all()


@every_objective
@pytest.mark.parametrize("process_type", [StandardProcess, MedianProcess])
def test_nothing_is_infinite_under_hybrid_noise(
    process_type: type[GaussianProcess], objective: str
) -> None:
    """Down to t = T, where alpha is 0 even in float64 (T = 4000), and x_0 cannot be known."""
    for num_steps in (2, 1000, 4000):
        process = process_under(process_type, "hybrid", num_steps)
        t = torch.cat([torch.zeros(1).long(), times(num_steps)])
        x_0, e = (value.float() for value in data_and_noise(len(t)))
        for dtype in (torch.float32, torch.bfloat16):
            output = (3 * e.flip(0)).to(dtype).requires_grad_()
            network = denoiser(process, objective, output)
            estimate = denoise(network, process.diffuse(x_0, t, e), t)
            loss = network.loss(x_0, process.level(t), e)
            assert estimate.dtype == loss.dtype == torch.float32
            assert estimate.isfinite().all()
            assert loss.isfinite().all()
            (loss.sum() + estimate.square().mean()).backward()
            assert output.grad is not None
            assert output.grad.isfinite().all()
