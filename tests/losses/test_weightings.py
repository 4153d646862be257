"""Weightings: functions of log-SNR that multiply the squared error of the x_0 estimate."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.level import MAX_LOG_SNR
from ddpm_lightning.losses.base import WeightedLoss
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.losses.shared import LOSSES, data_and_noise, denoiser
from tests.problems import build, denoise, every_example, loss_at, options, process_under

WEIGHTED = [name for name in LOSSES if isinstance(build("loss", name), WeightedLoss)]

every_objective = pytest.mark.parametrize("objective", options("objective"))

log_snr = torch.linspace(-20, 20, 401, dtype=torch.float64)
snr = log_snr.exp()


def per_loss(name: str, objective: str, t: Tensor) -> Tensor:
    """What a weighting makes of the loss on the objective's own target, standard linear chain."""
    process = process_under(StandardProcess, "linear")
    return build("loss", name).per_loss(denoiser(process, objective), process.level(t))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_positive_and_never_fall_with_snr(name: str) -> None:
    weight = build("loss", name).weight(log_snr)
    assert weight.dtype == torch.float64
    assert (weight > 0).all()
    assert (weight.diff() >= 0).all()


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_smaller_of_snr_and_gamma(gamma: float) -> None:
    """Hang et al. 2023, eq. 7, for a network that predicts x_0."""
    weight = build("loss", "min_snr", gamma=gamma).weight(log_snr)
    torch.testing.assert_close(weight, snr.clamp(max=gamma), rtol=1e-15, atol=0)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_soft_min_snr_is_half_the_harmonic_mean_of_snr_and_gamma(gamma: float) -> None:
    """4 SNR at Crowson et al.'s gamma = 4 and SNR = 4 is 2, half of min-SNR."""
    weight = build("loss", "soft_min_snr", gamma=gamma).weight(log_snr)
    torch.testing.assert_close(weight, snr * gamma / (snr + gamma), rtol=1e-13, atol=0)
    hard = build("loss", "min_snr", gamma=gamma).weight(log_snr)
    assert (weight < hard).all()
    assert (weight >= hard / 2 - 1e-15).all()


def test_p2_of_epsilon_is_that_of_choi_et_al() -> None:
    """1 / (k + SNR)^gamma."""
    process, t = process_under(StandardProcess, "linear"), torch.arange(1, 1001)
    snr = process.log_snr(t).exp()
    loss = build("loss", "p2", gamma=0.5, k=2.0)
    weight = loss.per_loss(denoiser(process, "epsilon"), process.level(t))
    torch.testing.assert_close(weight, (2 + snr) ** -0.5, rtol=1e-12, atol=0)


def test_edm_weight_is_that_of_karras_et_al() -> None:
    """lambda(s) = (s^2 + s_d^2) / (s s_d)^2 at the noise level s = sigma / alpha, s_d = 1/2."""
    s = (-log_snr / 2).exp()
    expected = (s**2 + 0.25) / (s / 2) ** 2
    weight = build("loss", "edm").weight(log_snr)
    torch.testing.assert_close(weight, expected, rtol=1e-13, atol=0)


@every_example
def test_edm_weighs_the_karras_target_evenly(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """lambda c_out^2 = 1 at every step, so that it is the simple loss of that objective."""
    process = process_under(process_type, noise)
    weight = build("loss", "edm").per_loss(
        denoiser(process, "karras"), process.level(torch.arange(1, 1001))
    )
    torch.testing.assert_close(weight, torch.ones(1000).double(), rtol=1e-12, atol=0)


def test_min_snr_of_epsilon_and_velocity_is_that_of_hang_et_al() -> None:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for velocity."""
    t = torch.arange(1, 1001)
    snr = process_under(StandardProcess, "linear").log_snr(t).exp()
    least = snr.clamp(max=5)
    torch.testing.assert_close(per_loss("min_snr", "clean", t), least, rtol=1e-12, atol=0)
    torch.testing.assert_close(per_loss("min_snr", "epsilon", t), least / snr, rtol=1e-12, atol=0)
    expected = least / (snr + 1)
    torch.testing.assert_close(per_loss("min_snr", "velocity", t), expected, rtol=1e-12, atol=0)


@every_objective
@pytest.mark.parametrize("name", WEIGHTED)
def test_loss_is_the_weight_times_the_error_of_the_estimate(name: str, objective: str) -> None:
    """Whatever the network predicts: objective and weighting are chosen apart."""
    process = process_under(MedianProcess, "cosine")
    loss, network = build("loss", name), denoiser(process, objective)
    x_0, e = data_and_noise(4)
    t = torch.tensor([1, 60, 400, 950])
    error = (denoise(network, process.diffuse(x_0, t, e), t) - x_0).square().flatten(1).mean(1)
    expected = loss.weight(process.log_snr(t)) * error
    # The estimate cancels sigma / alpha = 13 (t = 950) to 1e-16; the target is formed apart.
    torch.testing.assert_close(loss_at(loss, network, x_0, t, e), expected, rtol=1e-9, atol=1e-12)


@every_objective
def test_weights_see_log_snr_as_the_network_does(objective: str) -> None:
    """Held within +-40: beyond, min-SNR alone would weigh an estimate by exp(-438)."""
    process = process_under(StandardProcess, "hybrid")
    t = torch.tensor([990, 1000])
    assert (process.log_snr(t) < -300).all()
    weight = build("loss", "min_snr").per_loss(denoiser(process, objective), process.level(t))
    at_bound = torch.tensor(-MAX_LOG_SNR, dtype=torch.float64).exp()
    c_out = denoiser(process, objective).squared_error_per_loss(process.level(t))
    torch.testing.assert_close(weight, at_bound * c_out, rtol=1e-12, atol=0)


@every_objective
def test_simple_is_the_error_on_the_objectives_own_target(objective: str) -> None:
    process = process_under(StandardProcess, "linear")
    network = denoiser(process, objective)
    x_0, e = data_and_noise(4)
    t = torch.tensor([1, 60, 400, 1000])
    assert torch.equal(
        loss_at(build("loss", "simple"), network, x_0, t, e),
        network.loss(x_0, network.process.level(t), e),
    )
