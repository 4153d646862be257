"""Inversion of DDIM: noise from clips, and clips from that noise again."""

import pytest
import torch

from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ddim import DDIMSampler
from tests.problems import FLOOR, Gaussian, Mixture, every_example, process_under, trimodal
from tests.samplers.shared import bimodal, free, noiseless

pytestmark = pytest.mark.slow  # as a whole, not one by one


def ddim(num_evaluations: int, grid: str | None = None) -> DDIMSampler:
    sampler = free("ddim", grid=grid, num_evaluations=num_evaluations)
    assert isinstance(sampler, DDIMSampler)
    return sampler


def returned(data: Mixture, x: torch.Tensor, grid: str, num_evaluations: int) -> torch.Tensor:
    """What a walk makes of the noise that clips x were inverted to."""
    sampler = ddim(num_evaluations, grid)
    noise = sampler.invert(data, x)
    assert noise.shape == x.shape
    assert noise.dtype == x.dtype
    times = sampler.times(data.process, log_snr_floor(x.shape))
    return sampler.walk(data, noise, times, noiseless)


@every_example
@pytest.mark.parametrize(
    ("problem", "grid"), [("gaussian", "uniform_log_snr"), ("mixture", "quadratic")]
)
def test_a_walk_from_inverted_clips_returns_them(
    problem: str, grid: str, process_type: type[GaussianProcess], noise: str
) -> None:
    """Within 1e-5, in float64, at the tolerance that is set by default."""
    process = process_under(process_type, noise)
    data = Gaussian(process, mean=0.3, std=0.5) if problem == "gaussian" else bimodal(process)
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    # Each value by itself, and as clips of which each has its own rate.
    for shape in ((20,), (2, 1, 1, 2, 5)):
        clips = x.reshape(shape)
        end = returned(data, clips, grid, num_evaluations=25)
        torch.testing.assert_close(end, clips, rtol=0, atol=1e-5)


@every_example
def test_clips_between_narrow_modes_take_shorter_steps(
    process_type: type[GaussianProcess], noise: str
) -> None:
    data = trimodal(process_under(process_type, noise))
    x = data.quantiles(20)
    torch.testing.assert_close(returned(data, x, "karras", 200), x, rtol=0, atol=1e-5)


def test_inversion_follows_the_exact_flow_backwards() -> None:
    """To first order: the error halves with the intervals."""
    data = Gaussian(process_under(StandardProcess, "linear"), mean=0.3, std=0.5)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    errors = []
    for num_evaluations in (50, 100, 200):
        sampler = ddim(num_evaluations)
        exact = data.flow(x, 0, sampler.times(data.process, FLOOR)[0])
        errors.append(float((sampler.invert(data, x) - exact).abs().max()))
    assert 1.5 < errors[0] / errors[1] < 2.5
    assert 1.5 < errors[1] / errors[2] < 2.5


def test_a_smaller_tolerance_comes_closer() -> None:
    data = bimodal(process_under(StandardProcess, "linear"))
    sampler = ddim(num_evaluations=25)
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    times = sampler.times(data.process, FLOOR)
    for tolerance in (1e-4, 1e-8, 1e-12):
        noise = sampler.invert(data, x, tolerance)
        end = sampler.walk(data, noise, times, noiseless)
        assert float((end - x).abs().max()) <= tolerance


def test_clips_that_cannot_be_reached_are_refused() -> None:
    """The last of few intervals ends close to the data's modes, and hardly anywhere between."""
    data = trimodal(process_under(StandardProcess, "linear"))
    sampler = ddim(num_evaluations=20)
    message = r"^inversion did not settle within 1e-05 at t=\d+ in 200 iterations; ask for"
    with pytest.raises(ValueError, match=message) as error:
        sampler.invert(data, torch.linspace(-1, 1, 21, dtype=torch.float64))
    assert "\n" not in str(error.value)
