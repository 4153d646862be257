"""Given frames and pixels: under any sampler the rest has the law that it has given them."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.known import Known, KnownFrames, KnownPixels
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.walk import Point
from tests.networks.shared import unet
from tests.problems import EXAMPLES, build, options, process_under
from tests.samplers.gaussian_clips import SHAPE, GaussianClips, exact_moments
from tests.samplers.shared import free, member, noiseless

FRAMES = torch.tensor([True, False, False]).view(1, 1, 3, 1, 1)
ENDS = torch.tensor([True, False, True]).view(1, 1, 3, 1, 1)
PIXELS = torch.tensor([[True, False], [False, True], [False, False]]).view(1, 1, 3, 1, 2)
FAST = [("unipc", *EXAMPLES[0]), ("pair", *EXAMPLES[1])]
walks = pytest.mark.parametrize(
    ("name", "process_type", "noise"),
    [
        case if case in FAST else pytest.param(*case, marks=pytest.mark.long)
        for name in ("ancestral", "ddim", "unipc", "midpoint", "pair")
        for case in [(name, *example) for example in EXAMPLES]
    ],
)


def normal() -> tuple[Tensor, Tensor]:
    """A clip and noise, float64; seed 0."""
    clip, noise = torch.randn(
        2, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return clip / 2, noise


def at(log_snr: float) -> Level:
    return Level.at(torch.tensor(log_snr, dtype=torch.float64))


def flat(mask: Tensor) -> Tensor:
    return mask.expand(1, *SHAPE).flatten()


def errors(mean: Tensor, covariance: Tensor, expected: tuple[Tensor, Tensor]) -> list[float]:
    return [float((a - b).abs().max()) for a, b in zip((mean, covariance), expected, strict=True)]


def check(known: Known, sampler_name: str, ratio: float, values: Tensor) -> None:
    """The mean within 0.001 and what a start from N(0, sigma^2), not N(alpha mean, sigma^2), leaves
    behind; the covariance at least as close as an unconditional walk comes.
    """
    sampler = free(sampler_name, num_evaluations=25)
    assert isinstance(known.estimator, GaussianClips)
    data, given = known.estimator, flat(known.mask)
    mean, covariance = exact_moments(sampler, known)
    torch.testing.assert_close(mean[given], known.clip.flatten()[given], rtol=0, atol=1e-12)
    assert covariance[given].abs().max() < 1e-20
    expected = data.conditional(given, values, ratio)
    of_mean, of_covariance = errors(mean[~given], covariance[~given][:, ~given], expected)
    times = sampler.times(data.process, log_snr_floor((1, *SHAPE)))
    start = Point.at(data.process, times[0])
    assert of_mean < 1e-3 + 1.25 * 0.5 * float(expected[0].abs().max()) / start.ratio
    assert of_covariance < error_alone(sampler_name, data.process)


@cache
def error_alone(sampler_name: str, process: GaussianProcess) -> float:
    """Return that of the covariance where nothing is given."""
    data = GaussianClips(process)
    moments = exact_moments(free(sampler_name, num_evaluations=25), data)
    return errors(*moments, (data.mean, data.covariance))[1]


@pytest.mark.parametrize("log_snr", [6.0, torch.inf])
@walks
def test_frames_have_the_exact_law_given_others_at_their_level(
    name: str, process_type: type[GaussianProcess], noise: str, log_snr: float
) -> None:
    clip, drawn = normal()
    data, level = GaussianClips(process_under(process_type, noise)), at(log_snr)
    known = KnownFrames(data, clip, FRAMES, level, drawn)
    values = (level.diffuse(clip, drawn) / level.alpha).flatten()[flat(FRAMES)]
    check(known, name, float(level.sigma / level.alpha), values)


@walks
def test_values_have_the_exact_law_given_others(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    """With as many iterations as values are given, the solver is exact."""
    clip, _ = normal()
    data = GaussianClips(process_under(process_type, noise))
    known = KnownPixels(data, clip, PIXELS, at(torch.inf), num_iterations=2)
    check(known, name, 0.0, clip.flatten()[flat(PIXELS)])


def test_replacement_alone_conditions_too_little() -> None:
    """Without iterations given values are but shown to the denoiser, at the level of the walk."""
    clip, _ = normal()
    data = GaussianClips(process_under(StandardProcess, "cosine"))
    given = flat(PIXELS)
    expected, _ = data.conditional(given, clip.flatten()[given], 0.0)
    means = []
    for num_iterations in (0, 1, 2):
        known = KnownPixels(data, clip, PIXELS, at(torch.inf), num_iterations)
        mean, _ = exact_moments(free("unipc", num_evaluations=25), known)
        means.append(float((mean[~given] - expected).abs().max()))
    print(means)
    assert means[0] > 0.3  # of a standard deviation of 0.5
    assert means[0] > 2 * means[1]
    assert means[2] < 1e-4  # as many iterations as values are given


@pytest.mark.slow
def test_unipc_keeps_its_order() -> None:
    """On the flow of the conditional law, in closed form, from log-SNR -8 to 5."""
    process = process_under(VariancePreservingProcess, "linear")
    clip, drawn = normal()
    data, level, given = GaussianClips(process), at(6.0), flat(ENDS)
    known = KnownFrames(data, clip, ENDS, level, drawn)
    values = (known.noisy / level.alpha).flatten()[given]
    mean, covariance = data.conditional(given, values, float(level.sigma / level.alpha))
    spread, vectors = torch.linalg.eigh(covariance)
    counts, distances = [32, 64, 128, 256], []
    for count in counts:
        log_snr = torch.linspace(-8, 5, count + 1, dtype=torch.float64)
        times = process.axis(-20.0).at_log_snr(log_snr)
        start = torch.randn(
            1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        end = free("unipc").walk(known, start, times, noiseless).flatten()[~given]
        (a_t, s_t, _), (a_s, s_s, _) = process.level(times[0]), process.level(times[-1])
        stretch = ((a_s**2 * spread + s_s**2) / (a_t**2 * spread + s_t**2)).sqrt()
        away = vectors.T @ (start.flatten()[~given] - a_t * mean)
        expected = a_s * mean + vectors @ (stretch * away)
        distances.append(float((end - expected).abs().max()))
    order = -np.polyfit(np.log2(counts), np.log2(distances), 1)[0]
    print(f"{order:.2f}")
    assert order == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("ancestral", "pair") else pytest.param(name, marks=pytest.mark.long)
        for name in options("sampler")
    ],
)
def test_given_bytes_stand_unchanged_in_the_result(name: str) -> None:
    """Of a network that knows nothing, on the median chain; learned variance included."""
    learned = {"variance": None} if name == "ancestral" else {}
    torch.manual_seed(0)
    network = unet(channels=1, out_channels=2, temporal_attention=[True, False])
    process = process_under(MedianProcess, "hybrid")
    denoiser = Denoiser(network, process, build("objective", "velocity"))
    generator = torch.Generator().manual_seed(3)
    clips = torch.randint(256, (2, 4, 8, 8, 1), generator=generator, dtype=torch.uint8)
    denoiser.statistics.measure(clips // 2)
    clip = denoiser.statistics.standardise(clips)
    frames = torch.tensor([True, False, False, True]).view(1, 1, 4, 1, 1)
    block = torch.zeros(1, 1, 1, 8, 8, dtype=torch.bool)
    block[..., :3, 2:] = True
    for known in (
        KnownFrames(denoiser, clip, frames, at(6.0), torch.randn_like(clip)),
        KnownPixels(denoiser, clip, block, at(6.0), num_iterations=1),
    ):
        sampler = member(name, num_evaluations=3, **learned)
        x = sampler.sample(known, tuple(clip.shape), generator=generator)
        mask = known.mask.expand(clip.shape).movedim(1, -1)
        assert torch.equal(denoiser.statistics.restore(x)[mask], clips[mask])
        assert torch.equal(
            known.complete(x)[known.mask.expand(clip.shape)], clip[known.mask.expand(clip.shape)]
        )
        assert x.isfinite().all()
