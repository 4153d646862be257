"""A loss over the density of its times is an integral over log-SNR, whatever the density."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.losses.by_density import LossByDensity, density
from ddpm_lightning.losses.p2 import P2Loss
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.times.base import TimeSampling
from ddpm_lightning.times.laplace import Laplace
from ddpm_lightning.times.uniform_log_snr import UniformLogSNR
from ddpm_lightning.times.uniform_t import UniformTime
from tests.losses.shared import data_and_noise, denoiser
from tests.problems import process_under

FLOOR = -19.0
UNIFORM = UniformTime()
ARMS: dict[str, tuple[type[GaussianProcess], str, TimeSampling]] = {
    "cosine": (StandardProcess, "cosine", UNIFORM),
    "hybrid": (StandardProcess, "hybrid", UNIFORM),  # 255 steps that count, up to 1.4 apart
    "median hybrid": (MedianProcess, "hybrid", UNIFORM),
    "laplace": (StandardProcess, "cosine", Laplace()),
    "uniform": (StandardProcess, "cosine", UniformLogSNR()),
}
every_arm = pytest.mark.parametrize("arm", ARMS)


def bump(log_snr: Tensor) -> Tensor:
    """SNR / (1 + SNR)^2, whose integral over all log-SNR is 1: val/error of a velocity error 1."""
    return log_snr.sigmoid() * (-log_snr).sigmoid()


def quantiles(arm: str, num: int) -> Tensor:
    kind, noise, times = ARMS[arm]
    process = process_under(kind, noise)
    fraction = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    return process.log_snr(times.times(process, fraction, FLOOR)).clamp(min=FLOOR)


@every_arm
def test_mean_of_a_function_over_the_density_is_its_integral(arm: str) -> None:
    """To 0.5 %: the trapezoidal rule on hybrid's steps, and Laplace's tail that 10^5 draws lack."""
    kind, noise, times = ARMS[arm]
    levels, at = density(process_under(kind, noise), times, FLOOR)
    drawn = quantiles(arm, 100_000)
    weight = 1 / at[torch.searchsorted((levels[1:] + levels[:-1]) / 2, drawn)]
    assert float((bump(drawn) * weight).mean()) == pytest.approx(1, abs=0.006)


def test_density_of_uniform_times_is_one_over_the_range_and_laplace_is_its_own() -> None:
    process = process_under(StandardProcess, "cosine")
    levels, at = density(process, UniformLogSNR(), FLOOR)
    middle = levels.abs() < 4
    expected = torch.full_like(at, 1 / float(levels[-1] - levels[0]))
    torch.testing.assert_close(at[middle], expected[middle], rtol=0.02, atol=0)
    levels, at = density(process, Laplace(0.0, 0.5), FLOOR)
    middle = levels.abs() < 2
    # Each step has the law's mass of its bin, up to a 60th of log-SNR wide.
    torch.testing.assert_close(at[middle], (-2 * levels[middle].abs()).exp(), rtol=0.05, atol=0)


@every_arm
def test_loss_is_that_inside_over_the_density_at_its_level(arm: str) -> None:
    kind, noise, times = ARMS[arm]
    process = process_under(kind, noise)
    x_0, eps = data_and_noise(3)
    t = times.times(process, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), FLOOR)
    level, model = process.level(t), denoiser(process, "velocity")
    divided = LossByDensity(P2Loss(), times)(model, x_0, t, level, eps)
    levels, at = density(process, times, log_snr_floor(x_0.shape))
    nearest = (level.log_snr[:, None] - levels).abs().argmin(1)
    inside = P2Loss()(model, x_0, t, level, eps)
    torch.testing.assert_close(divided, inside / at[nearest], rtol=1e-12, atol=0)
