"""A level is all that objectives and networks know of a process, and log-SNR is all of a level."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR, Level
from ddpm_lightning.processes.median import MedianProcess
from tests.problems import FixedOutput, build, options, process_under

LOG_SNR = torch.linspace(-60, 60, 61, dtype=torch.float64)
SHAPE = (61, 1, 2, 3, 3)


def normal(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_a_level_at_a_log_snr_preserves_variance_and_has_that_log_snr() -> None:
    level = Level.at(LOG_SNR)
    torch.testing.assert_close(
        level.alpha.square() + level.sigma.square(), torch.ones_like(LOG_SNR)
    )
    torch.testing.assert_close(Level.of(level.alpha, level.sigma).log_snr, LOG_SNR)
    assert all(part.dtype == torch.float64 for part in level)


def test_a_bounded_level_raises_the_smaller_coefficient_alone() -> None:
    level = Level.at(LOG_SNR)
    bounded = level.bounded()
    torch.testing.assert_close(bounded.log_snr, LOG_SNR.clamp(-MAX_LOG_SNR, MAX_LOG_SNR))
    inside = LOG_SNR.abs() < MAX_LOG_SNR
    assert torch.equal(bounded.alpha[inside], level.alpha[inside])
    assert torch.equal(bounded.alpha[LOG_SNR > 0], level.alpha[LOG_SNR > 0])
    assert torch.equal(bounded.sigma[LOG_SNR < 0], level.sigma[LOG_SNR < 0])


def test_no_noise_at_all_is_an_infinite_log_snr() -> None:
    level = process_under(MedianProcess, "linear").level(0)
    assert (float(level.alpha), float(level.sigma)) == (1, 0)
    assert float(level.log_snr) == torch.inf
    assert float(level.bounded().log_snr) == pytest.approx(MAX_LOG_SNR)


def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise must be shaped like x_0, \(61, 1, 2, 3, 3\)"):
        Level.at(LOG_SNR).diffuse(normal(0), normal(1)[:1])


@pytest.mark.parametrize("objective", options("objective"))
def test_input_conditioning_and_target_depend_on_log_snr_alone(objective: str) -> None:
    """The lemma that makes processes and schedules densities over log-SNR, on the median chain.

    Coefficients are float64 and clips float32, so that the two agree to float32's round-off.
    """
    process = process_under(MedianProcess, "cosine")
    level = process.level(torch.linspace(1, 900, 61).long())
    preserving = Level.at(level.log_snr)
    scale = level.alpha / preserving.alpha
    assert (scale - 1).abs().max() > 0.1  # the chain does not preserve variance
    denoiser = Denoiser(FixedOutput(0.3), process, build("objective", objective))
    x_0, noise = 0.5 * normal(0), normal(1)
    inputs, losses = [], []
    for each in (level, preserving):
        losses.append(denoiser.loss(x_0, each, noise))
        inputs.append((denoiser.network.x, denoiser.network.log_snr))
    for ours, theirs in zip(*inputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*losses, rtol=5e-6, atol=1e-6)
