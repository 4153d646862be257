"""Statistics of the training clips: exact, and undone byte by byte."""

from math import log, pi

import pytest
import torch
from torch import Tensor

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.level import Level
from ddpm_lightning.likelihood.base import BIN_WIDTH
from ddpm_lightning.likelihood.flow import FlowLikelihood
from ddpm_lightning.losses.bound import decoder_nats, discretised_nats
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.thresholding import DynamicThresholding, StaticThresholding
from ddpm_lightning.statistics import Statistics
from tests.problems import Gaussian, build


def clips(seed: int, channels: int = 3) -> Tensor:
    """(6, F, H, W, C) uint8 of uneven brightness: each clip is a random power of random bytes."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand((6, 4, 5, 7, channels), generator=generator)
    power = torch.rand((6, 1, 1, 1, channels), generator=generator) * 3
    return (values**power * 255).round().byte()


def measured(channels: int = 3) -> Statistics:
    statistics = Statistics()
    statistics.measure(clips(0, channels))
    return statistics


SHIFTED = Statistics()
SHIFTED.mean.fill_(-0.5)
SHIFTED.std.fill_(0.25)


@pytest.mark.parametrize("channels", [1, 3])
def test_standardised_clips_have_mean_0_and_deviation_a_half(channels: int) -> None:
    """Per channel the mean, over all the deviation; float32 round-off."""
    x = measured(channels).standardise(clips(0, channels)).double()
    assert x.mean((0, 2, 3, 4)).abs().max() < 1e-6
    assert float(x.square().mean().sqrt()) == pytest.approx(0.5, rel=1e-6)


def test_bytes_return_as_they_were() -> None:
    statistics = measured()
    assert torch.equal(statistics.restore(statistics.standardise(clips(1))), clips(1))


def test_until_measured_clips_are_left_in_their_range() -> None:
    """Also in any number of channels."""
    assert torch.equal(Statistics().standardise(clips(1)), to_float(clips(1)))


def test_clips_of_one_colour_are_a_grey_level_wide() -> None:
    statistics = Statistics()
    statistics.measure([torch.full((2, 3, 3, 1), 9, dtype=torch.uint8)])
    assert float(statistics.std) == pytest.approx(2 / 255)
    assert str(statistics) == "mean -0.93, standard deviation 0.01"


def test_without_clips_nothing_is_measured() -> None:
    with pytest.raises(ValueError, match="no clip to measure"):
        Statistics().measure([])


def test_they_are_part_of_a_state() -> None:
    other = Statistics()
    other.load_state_dict(measured().state_dict())
    assert torch.equal(other.standardise(clips(1)), measured().standardise(clips(1)))


@pytest.mark.parametrize("thresholding", [StaticThresholding(), DynamicThresholding()])
def test_samples_stay_within_the_range_of_bytes(
    thresholding: StaticThresholding | DynamicThresholding,
) -> None:
    """Data beyond the range, standardised: every sample lies on its edge or within; seed 0."""
    data = Gaussian(StandardProcess(build("noise", "cosine", num_steps=50)), mean=0.3, std=2.0)
    data.statistics = measured()
    x = DDIMSampler(5, thresholding=thresholding).sample(
        data, (64, 3, 1, 2, 2), generator=torch.Generator().manual_seed(0)
    )
    values = data.statistics.to_values(x)
    assert float(values.abs().max()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_the_flow_gives_the_likelihood_of_values_in_every_space(discrete: bool) -> None:
    """Values N(0, 0.3^2) under their exact denoiser; dequantisation costs under 0.01 bits."""
    process = StandardProcess(build("noise", "cosine", num_steps=1000))
    noise = torch.randn(16, 2, 2, 2, 1, generator=torch.Generator().manual_seed(3))
    clip = (127.5 + 127.5 * 0.3 * noise).round().clamp(0, 255).byte()
    density = (to_float(clip).double() / 0.3).square() / 2 + log(0.3 * (2 * pi) ** 0.5)
    expected = (float(density.mean()) - (log(BIN_WIDTH) if discrete else 0)) / log(2)
    for space in (Statistics(), SHIFTED):
        data = Gaussian(process, -float(space.mean[0]) * space.scale, 0.3 * space.scale)
        data.statistics = space
        nats = FlowLikelihood(discrete=discrete).nats(
            data, space.standardise(clip), torch.Generator().manual_seed(4)
        )
        assert float(nats.bits.mean()) == pytest.approx(expected, abs=0.01)


def test_the_decoder_gives_the_probability_of_bytes_in_every_space() -> None:
    """The same estimate and the same noise, in units of values, whatever the space."""
    clip = clips(1, channels=1)
    values, std = to_float(clip), torch.tensor(0.02, dtype=torch.float64)
    expected = discretised_nats(values, values + 0.01, std)
    data = Gaussian(StandardProcess(build("noise", "cosine", num_steps=10)), mean=0.0, std=1.0)
    data.statistics = SHIFTED
    level = Level.of(torch.ones_like(std), std * SHIFTED.scale)
    mean = SHIFTED.from_values(values + 0.01)
    torch.testing.assert_close(
        decoder_nats(data, level, SHIFTED.standardise(clip), mean), expected, rtol=1e-4, atol=0
    )
