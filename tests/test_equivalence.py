"""Equal log-SNR, equal problem: a process and the standard chain under its matched schedule.

Where their log-SNR agree, at the strict running minima of the process's own, the two have the same
losses and the same deterministic paths, up to the scale of x.
"""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.noise.matched import MatchedSchedule
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.walk import State
from tests.problems import (
    FLOOR,
    ThirdOrderProcess,
    build,
    denoise,
    every_noise,
    loss_at,
    options,
    process_under,
)
from tests.samplers.shared import free

SHAPE = (1, 2, 3, 3)

every_process = pytest.mark.parametrize("process_type", [MedianProcess, ThirdOrderProcess])
every_objective = pytest.mark.parametrize("objective", options("objective"))


class Smooth(nn.Module):
    """A network that sees what all networks see: normalised x, and log-SNR."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        wave = (log_snr / 5).cos().reshape(-1, *[1] * (x.dim() - 1))
        return torch.tanh(0.7 * x.roll(1, -1) - 0.3 * wave) + 0.2 * wave * x


@cache
def twins(
    process_type: type[GaussianProcess], noise: str
) -> tuple[GaussianProcess, StandardProcess, Tensor]:
    """A process, the matched standard chain, and the times of equal log-SNR."""
    process = process_under(process_type, noise)
    matched = StandardProcess(MatchedSchedule(process.num_steps, process, 0.999999))
    t = torch.arange(1, process.num_steps + 1)
    log_snr = process.log_snr(t)
    before = torch.cat([torch.tensor([torch.inf]), log_snr.cummin(0).values[:-1]])
    unclipped = (matched.schedule.betas() < 0.999999).cumprod(0).bool()
    return process, matched, t[(log_snr < before) & unclipped]


def data_and_noise(num_samples: int) -> tuple[Tensor, Tensor]:
    """Clips of standard deviation 0.5, and noise; seed 0, float64."""
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, num_samples, *SHAPE, generator=generator, dtype=torch.float64)
    return 0.5 * x_0, e


def scale(process: GaussianProcess, t: Tensor) -> Tensor:
    """sqrt(alpha^2 + sigma^2): 1 on the standard chain."""
    alpha, sigma, _ = process.level(t)
    return (alpha.square() + sigma.square()).sqrt().reshape(-1, *[1] * len(SHAPE))


@every_noise
@every_process
def test_log_snr_agrees_at_running_minima(process_type: type[GaussianProcess], noise: str) -> None:
    process, matched, t = twins(process_type, noise)
    assert len(t) >= (400 if noise == "hybrid" else 999)
    torch.testing.assert_close(process.log_snr(t), matched.log_snr(t), rtol=1e-12, atol=1e-10)


@every_objective
@pytest.mark.parametrize(
    ("process_type", "noise", "name"),
    [
        (MedianProcess, "hybrid", "simple"),
        (MedianProcess, "cosine", "soft_min_snr"),
        (ThirdOrderProcess, "hybrid", "edm"),
        (ThirdOrderProcess, "cosine", "min_snr"),
    ],
)
def test_losses_are_equal(
    process_type: type[GaussianProcess], noise: str, objective: str, name: str
) -> None:
    """Same network, same x_0, same noise: 1e-10 of each, from log-SNR that agree to 1e-12."""
    process, matched, t = twins(process_type, noise)
    t = t[:: max(1, len(t) // 40)]
    x_0, e = data_and_noise(len(t))
    loss = build("loss", name)
    ours, theirs = (
        loss_at(loss, Denoiser(Smooth(), p, build("objective", objective)), x_0, t, e)
        for p in (process, matched)
    )
    assert (ours > 0).all()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


@every_objective
@pytest.mark.parametrize(
    ("process_type", "noise"), [(MedianProcess, "hybrid"), (ThirdOrderProcess, "cosine")]
)
def test_estimates_are_equal(
    process_type: type[GaussianProcess], noise: str, objective: str
) -> None:
    """Above the floor: below, two alphas of exp(-100) are no longer of the same input."""
    process, matched, t = twins(process_type, noise)
    t = t[process.log_snr(t) > FLOOR][::20]
    x_0, e = data_and_noise(len(t))
    ours, theirs = (
        denoise(Denoiser(Smooth(), p, build("objective", objective)), p.diffuse(x_0, t, e), t)
        for p in (process, matched)
    )
    # Two terms of up to exp(6) cancel.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("process_type", "noise"), [(MedianProcess, "hybrid"), (ThirdOrderProcess, "cosine")]
)
@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_deterministic_paths_are_equal_up_to_the_scale_of_x(
    process_type: type[GaussianProcess], noise: str, name: str
) -> None:
    """x / sqrt(alpha^2 + sigma^2) along the whole path, and the same clips at its end; seed 0."""
    process, matched, t = twins(process_type, noise)
    t = t[process.log_snr(t) > FLOOR]
    times = torch.cat([t[:: len(t) // 12].flip(0), torch.zeros(1).long()])
    sampler = free(name)
    _, start = data_and_noise(2)
    paths: list[list[Tensor]] = []
    for p in (process, matched):
        states: list[State] = []
        denoiser = Denoiser(Smooth(), p, build("objective", "velocity"))
        x = start * scale(p, times[0])
        sampler.walk(denoiser, x, times, lambda: torch.zeros_like(start), states.append)
        assert len(states) == len(times)
        paths.append([state.x / scale(p, torch.tensor(state.t).long()) for state in states])
    for ours, theirs in zip(*paths, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    ratio = process.level(times[0]).alpha / matched.level(times[0]).alpha
    torch.testing.assert_close(
        scale(process, times[0]).flatten()[0], ratio, rtol=1e-10, atol=0
    )  # x / alpha is the same invariant
