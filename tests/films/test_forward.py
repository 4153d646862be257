"""The film of the forward process shows one path of each chain, with the chain's own law."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_lightning.data.clips.source import SourceClips
from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.films.forward import ForwardFilm, signal_share
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.statistics import Statistics
from tests.commands import write_gifs
from tests.problems import every_example, process_under

FRAMES = 2
EXAMPLE = (MedianProcess, "hybrid")


@pytest.fixture
def data(tmp_path: Path) -> SourceClips:
    folder = write_gifs(tmp_path / "gifs", num_gifs=3)
    return SourceClips(GifFolder, str(folder), size=8, num_frames=FRAMES)


@every_example
def test_a_path_has_the_means_and_covariances_of_its_chain(
    data: SourceClips, process_type: type[GaussianProcess], noise: str
) -> None:
    chain = process_under(process_type, noise)
    film = ForwardFilm(data, {"chain": chain}, num_images=8)
    x_0 = torch.full((3, FRAMES, 64, 64), 0.25)
    t, x_t = film.times(chain), film.path(chain, x_0)
    alpha, sigma, _ = chain.level(t)
    num = x_t[0].numel()
    assert len(x_t) == len(t) == FRAMES + 8
    assert torch.equal(x_t[t == 0], x_0[:, 0].expand_as(x_t[t == 0]))
    noise_t = x_t.double() - alpha.reshape(-1, 1, 1, 1) * 0.25
    error = 5 * sigma / num**0.5  # five standard errors, and of products of two
    assert (noise_t.mean((1, 2, 3)).abs() <= error + 1e-6).all()
    for s in range(len(t) - FRAMES):  # the same frame again
        both = noise_t[s] * noise_t[s + FRAMES]
        law = float(chain.covariance(t[s], t[s + FRAMES]))
        assert float(both.mean()) == pytest.approx(law, abs=float(8 * sigma[-1] ** 2 / num**0.5))
    assert torch.allclose(noise_t.var((1, 2, 3)), sigma.square(), rtol=8 / num**0.5, atol=1e-6)


def test_the_clip_plays_before_noise_comes(data: SourceClips) -> None:
    chain = process_under(*EXAMPLE)
    clips = data.first_clips(8)
    statistics = Statistics()
    statistics.measure(clips)
    x_0 = statistics.standardise(clips[0][None])[0]
    shown = statistics.restore(ForwardFilm(data, {"": chain}).path(chain, x_0)[:, :, None])[:, 0]
    assert torch.equal(shown[:FRAMES], clips[0])


def test_share_and_log_snr_are_one_number() -> None:
    """Of data of deviation 1/2: half of the variance is signal where log-SNR is log 4."""
    level = Level.at(torch.tensor([4.0, 1.0]).log())
    torch.testing.assert_close(signal_share(level), torch.tensor([0.5, 0.2]).double())


def test_broken_gifs_are_passed_over(tmp_path: Path) -> None:
    folder = write_gifs(tmp_path / "gifs", num_gifs=1)
    (folder / "00.gif").rename(folder / "b.gif")
    (folder / "a.gif").write_bytes(b"no GIF")
    data = SourceClips(GifFolder, str(folder), size=8, num_frames=FRAMES)
    assert len(data.first_clips(5)) == 1
    (folder / "b.gif").write_bytes(b"nor this")
    with pytest.raises(ValueError, match=r"no usable GIF in .*gifs"):
        data.first_clips(5)


@pytest.mark.slow
def test_grey_clips_are_shown_too(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(encode(np.zeros((2, 8, 8, 3), np.uint8), [100, 100]))
    data = SourceClips(GifFolder, str(tmp_path), size=8, num_frames=FRAMES, channels=1)
    picture = ForwardFilm(data, {"a": process_under(*EXAMPLE)}, num_images=2).draw()
    assert len(picture.images) == FRAMES + 2
