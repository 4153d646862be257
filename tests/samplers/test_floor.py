"""What the values of a clip share is decided far below where a single value is: at SNR / d."""

from math import prod, sqrt

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.statistics import Statistics
from tests.problems import CHAINS, build, noises, options, process_under
from tests.samplers.shared import free, member, sampled

GREY = 1 / 127.5  # a level of 8 bits
MEAN, STD = 0.65, 0.19  # of brightness


class Brightness:
    """Clips of one brightness N(mean, std^2), common to all values, plus N(0, texture^2) of each.

    The exact estimate: the mean over a clip's values and what is left of them are independent. An
    objective adds what an error of the network, the same for all values and one for each, does.
    """

    def __init__(self, process: GaussianProcess, mean: float, texture: float) -> None:
        self.process, self.mean, self.texture = process, mean, texture
        self.statistics = Statistics()
        self.objective: Objective | None = None
        self.common_error = self.own_error = 0.0
        self.generator = torch.Generator().manual_seed(1)

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        alpha, sigma = float(level.alpha), float(level.sigma)
        mean = x.flatten(1).mean(1).reshape(-1, 1, 1, 1, 1)
        noise = sigma**2 / x[0].numel()
        gain = alpha * STD**2 / ((alpha * STD) ** 2 + noise)
        own = alpha * self.texture**2 / ((alpha * self.texture) ** 2 + sigma**2)
        x_0 = (x - mean) * own + self.mean + gain * (mean - alpha * self.mean)
        if self.objective is not None:
            error = torch.randn(x.shape, generator=self.generator) * self.own_error
            c_out = float(self.objective.scaling(level).c_out)
            x_0 += c_out * (error + self.common_error)
        return Estimate(x_0, None)


@pytest.mark.parametrize("noise", noises())
@pytest.mark.parametrize("process_type", CHAINS)
def test_a_walk_calls_the_network_at_levels_that_training_draws(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """To the bit, whatever the schedule's jumps: from the floor of 16x64x64, at 2 and 20 calls, all
    but `pair`, which sees whole states. A start used to be raised to the floor between two steps.
    """
    process = process_under(process_type, noise)
    floor = log_snr_floor((1, 3, 16, 64, 64))
    every = torch.arange(2000, dtype=torch.float64) / 2000
    trained = build("times", "uniform_t").times(process, every, floor)
    levels = set(process.level(trained).bounded().log_snr.tolist())
    for grid in options("sampler/grid"):
        for num_intervals in (2, 20):
            times = build("sampler/grid", grid).times(process.axis(floor), num_intervals)[:-1]
            points = [Point.at(process, t) for t in times]
            assert {float(point.level.bounded().log_snr) for point in points} <= levels


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("noise", ["cosine", "zero_terminal_snr"])
def test_mean_brightness_is_kept(noise: str, size: int) -> None:
    """DDIM, 20 calls, 16 frames in colour: one walk from noise 0, because the walk is affine. From
    log-SNR -12 on it came out 3, 6 and 14 levels too dark under cosine noise, 7, 14 and 26 under
    zero_terminal_snr.
    """
    data = Brightness(process_under(StandardProcess, noise), MEAN, texture=0.0)
    sampler, shape = free("ddim", num_evaluations=20), (1, 3, 16, size, size)
    times = sampler.times(data.process, log_snr_floor(shape))
    end = sampler.walk(data, torch.zeros(shape), times, lambda: torch.zeros(shape))
    assert float(end.mean()) == pytest.approx(MEAN, abs=GREY)


@pytest.mark.parametrize("noise", ["cosine", "zero_terminal_snr"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_spread_of_brightness_is_kept_in_twenty_calls(name: str, noise: str) -> None:
    """Within 3 %: of a walk from one standard deviation of the noise's mean, less that from 0."""
    data = Brightness(process_under(StandardProcess, noise), MEAN, texture=0.0)
    sampler, shape = free(name, num_evaluations=20), (1, 3, 16, 64, 64)
    times = sampler.times(data.process, log_snr_floor(shape))
    sigma = float(data.process.level(times[0]).sigma)
    ends = [
        sampler.walk(data, torch.full(shape, start), times, lambda: torch.zeros(shape)).mean()
        for start in (0.0, sigma / sqrt(prod(shape)))
    ]
    assert float(ends[1] - ends[0]) == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize(("num_evaluations", "thresholding"), [(10, "static"), (50, "none")])
@pytest.mark.parametrize("objective", ["epsilon", "posterior"])
def test_an_error_of_a_network_that_predicts_noise_does_not_grow(
    objective: str, num_evaluations: int, thresholding: str
) -> None:
    """1e-2 from the floor of 16x16x16 on, under zero_terminal_snr, whose last level is -33.

    An error of each value's own changes nothing that can be seen. One common to all values is as
    large as the mean of the noise: brightness is wrong, but by no more than the range of data, 2;
    it was by 36,000 before the objectives held sigma / alpha.
    """
    sampler = member("ddim", num_evaluations=num_evaluations)
    sampler.thresholding = build("sampler/thresholding", thresholding)
    data = Brightness(process_under(StandardProcess, "zero_terminal_snr"), 0.0, texture=0.3)
    exact = sampled(sampler, data, 4, 3, 16, 16, 16)
    data.objective = build("objective", objective)
    data.own_error = 1e-2
    x = sampled(sampler, data, 4, 3, 16, 16, 16)
    torch.testing.assert_close(x.mean((1, 2, 3, 4)), exact.mean((1, 2, 3, 4)), rtol=0, atol=0.03)
    assert float(x.std()) == pytest.approx(float(exact.std()), rel=0.05)
    data.own_error, data.common_error = 0.0, 1e-2
    x = sampled(sampler, data, 4, 3, 16, 16, 16)
    assert (x.mean((1, 2, 3, 4)) - exact.mean((1, 2, 3, 4))).abs().max() <= 2
