"""Laws of conf/sampler/thresholding, alone and within walks."""

import pytest
import torch

from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.thresholding import Thresholding
from tests.problems import Gaussian, build, options, process_under
from tests.samplers.shared import every_sampler, member, sampled

BOUNDED = [name for name in options("sampler/thresholding") if name != "none"]


def clips(scale: float) -> torch.Tensor:
    """Four clips of different spread; seed 0."""
    generator = torch.Generator().manual_seed(0)
    spreads = torch.tensor([0.1, 0.3, 1.0, 3.0]).reshape(4, 1, 1, 1, 1)
    return scale * spreads * torch.randn(4, 3, 5, 8, 8, generator=generator)


def test_without_thresholding_estimates_stay_as_they_are() -> None:
    x_0 = clips(2.0)
    assert torch.equal(build("sampler/thresholding", "none").apply(x_0), clips(2.0))


@pytest.mark.parametrize("bound", [0.5, 1.0])
@pytest.mark.parametrize("name", BOUNDED)
def test_estimates_end_within_the_bound(name: str, bound: float) -> None:
    x_0 = clips(2.0)
    limited = build("sampler/thresholding", name, bound=bound).apply(x_0)
    assert limited.shape == x_0.shape
    assert limited.dtype == x_0.dtype
    # scaling rounds in float32
    assert float(limited.abs().max()) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("name", options("sampler/thresholding"))
def test_estimates_within_the_bound_stay_as_they_are(name: str) -> None:
    x_0 = clips(1.0)
    x_0 = x_0 / x_0.abs().max()
    assert torch.equal(build("sampler/thresholding", name).apply(x_0.clone()), x_0)


@pytest.mark.parametrize("name", options("sampler/thresholding"))
def test_each_clip_is_limited_by_itself(name: str) -> None:
    thresholding: Thresholding = build("sampler/thresholding", name)
    together = thresholding.apply(clips(2.0))
    for k in range(4):
        assert torch.equal(thresholding.apply(clips(2.0)[k : k + 1])[0], together[k])


def test_static_thresholding_clips() -> None:
    thresholding = build("sampler/thresholding", "static", bound=0.7)
    assert torch.equal(thresholding.apply(clips(2.0)), clips(2.0).clamp(-0.7, 0.7))


def test_dynamic_thresholding_at_quantile_one_scales_each_clip_to_its_maximum() -> None:
    """Only those that reach beyond the bound."""
    limited = build("sampler/thresholding", "dynamic", quantile=1.0).apply(clips(1.0))
    largest = clips(1.0).abs().amax((1, 2, 3, 4), keepdim=True)
    assert (largest > 1).flatten().tolist() == [False, True, True, True]
    torch.testing.assert_close(limited, clips(1.0) / largest.clamp(min=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
def test_dynamic_thresholding_saturates_the_share_beyond_the_quantile(quantile: float) -> None:
    limited = build("sampler/thresholding", "dynamic", quantile=quantile).apply(clips(20.0))
    saturated = (limited.abs() >= 1 - 1e-6).flatten(1).double().mean(1)
    # One value of 960 is the quantile itself, and ranks are whole.
    expected = torch.full((4,), 1 - quantile, dtype=torch.float64)
    torch.testing.assert_close(saturated, expected, rtol=0, atol=2 / 960)


@pytest.mark.slow
@every_sampler
def test_samples_are_within_the_bound(name: str) -> None:
    """With data far outside every estimate is the bound itself, and so is the last one."""
    data = Gaussian(process_under(MedianProcess, "hybrid", 100), mean=5.0, std=0.001)
    sampler = member(name, num_evaluations=10)
    for thresholding in BOUNDED:
        sampler.thresholding = build("sampler/thresholding", thresholding, bound=0.5)
        x = sampled(sampler, data, 10)
        torch.testing.assert_close(x, torch.full_like(x, 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [0.0, -1.0])
@pytest.mark.parametrize("name", BOUNDED)
def test_bound_must_be_positive(name: str, bound: float) -> None:
    with pytest.raises(ValueError, match="bound must be positive, got"):
        build("sampler/thresholding", name, bound=bound)


@pytest.mark.parametrize("quantile", [0.0, 1.1])
def test_quantile_must_lie_in_the_unit_interval(quantile: float) -> None:
    with pytest.raises(ValueError, match=r"quantile must lie in \(0, 1\], got"):
        build("sampler/thresholding", "dynamic", quantile=quantile)


def test_inversion_is_of_estimates_without_thresholding() -> None:
    """Thresholding has no inverse: a sampler with it inverts like one without."""
    data = Gaussian(process_under(StandardProcess, "linear", 100), mean=0.3, std=0.5)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    noises = [
        DDIMSampler(20, thresholding=build("sampler/thresholding", name)).invert(data, x)
        for name in options("sampler/thresholding")
    ]
    assert all(torch.equal(noise, noises[0]) for noise in noises)
