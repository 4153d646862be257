"""Clips longer than the network sees at once: which chunks, and that they have the data's law."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.known import Known, KnownFrames
from ddpm_lightning.level import Level
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.rollout import Plan, chunks, first_step, roll_out
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.samplers.walk import Point
from tests.problems import process_under
from tests.samplers.gaussian_clips import SHAPE, GaussianClips
from tests.samplers.shared import free

CLEAN = Level.at(torch.tensor(torch.inf, dtype=torch.float64))


def known(estimator: Estimator, clip: Tensor, mask: Tensor, noise: Tensor) -> Known:
    return KnownFrames(estimator, clip, mask, CLEAN, noise)


def nothing(num_frames: int) -> Plan:
    return Plan(
        torch.zeros(1, 1, num_frames, *SHAPE[2:]).double(),
        torch.zeros(num_frames, 1, 1).bool(),
        SHAPE[1],
    )


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("window", [4, 8])
def test_chunks_sample_every_frame_once_and_see_half_a_window_of_context(
    window: int, loop: bool
) -> None:
    for num_frames in range(window + 1, 5 * window):
        for given in ([], [0], list(range(window // 2)), list(range(num_frames - 2))):
            filled = torch.zeros(num_frames, dtype=torch.bool)
            filled[given] = True
            for number, positions in enumerate(chunks(filled, window, loop)):
                assert len(positions.unique()) == window
                assert not filled[positions].all()
                if number:
                    assert filled[positions].sum() >= window // 2
                    assert filled[positions[0]]
                if loop and filled[positions].sum() + (~filled).sum() == window:  # the last one
                    assert filled[positions[-1]]
                    assert positions[-1] == (positions[0] + window - 1) % num_frames
                filled[positions] = True
            assert filled.all()


def test_a_clip_of_one_chunk_is_one_chunk() -> None:
    given = torch.tensor([True, False, False, True])
    assert [c.tolist() for c in chunks(given, 4, loop=False)] == [[0, 1, 2, 3]]
    assert list(chunks(torch.ones(4, dtype=torch.bool), 4, loop=False)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["unipc", "ancestral"])
def test_long_clips_of_markov_frames_have_the_law_of_the_data(name: str) -> None:
    """9 frames in 4 chunks of 3, each of which knows one frame: 3,000 clips, seed 0. A correlation
    of r has a standard error of (1 - r^2) / sqrt(3000); ancestral loses 2 % of the variance.
    """
    data = GaussianClips(process_under(StandardProcess, "cosine"), mean=(0.1, 0.1))
    number, num_frames = 3000, 9
    clips = roll_out(
        free(name, num_evaluations=60),
        data,
        nothing(num_frames),
        per_sample_generators(0, range(number)),
        known,
    )
    values = clips.flatten(1)
    deviation = values.std(0)
    slack = 0.02 if name == "ancestral" else 0.002
    assert (deviation - 0.5).abs().max() < 0.5 * (5 / (2 * number) ** 0.5 + slack)
    assert (values.mean(0) - 0.1).abs().max() < 5 * 0.5 / number**0.5
    distance = (torch.arange(num_frames)[:, None] - torch.arange(num_frames)).abs().double()
    correlation = torch.corrcoef(values[:, ::2].T)
    expected = 0.7**distance
    error = (correlation - expected).abs()
    assert (error <= 5 * (1 - expected**2) / number**0.5 + 0.01).all()


def test_what_is_given_stands_and_clips_depend_on_their_generators_alone() -> None:
    data = GaussianClips(process_under(MedianProcess, "hybrid"))
    plan = nothing(6)
    plan.clip[:, :, :2], plan.mask[:2] = 0.3, True
    sampler = free("unipc", num_evaluations=5)
    whole = roll_out(sampler, data, plan, per_sample_generators(0, range(3)), known)
    assert whole.shape == (3, 1, 6, *SHAPE[2:])
    assert (whole[:, :, :2] == plan.clip[:, :, :2]).all()
    alone = roll_out(sampler, data, plan, per_sample_generators(0, [2]), known)
    torch.testing.assert_close(alone[0], whole[2])


@pytest.mark.parametrize("strength", [1 / 8, 0.5])
def test_a_weak_walk_stays_close_to_its_clip(strength: float) -> None:
    """Of Gaussian data the flow back from x_t = alpha clip + sigma noise keeps each principal axis
    of the clip by alpha std / sqrt(alpha^2 var + sigma^2); 400 clips, seed 0.
    """
    process = process_under(StandardProcess, "cosine")
    data = GaussianClips(process, mean=(0.0, 0.0))
    clip = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) / 2
    plan = Plan(clip[None].double(), torch.zeros(3, 1, 1).bool(), 3, strength=strength)
    sampler = free("unipc", num_evaluations=64)
    clips = roll_out(sampler, data, plan, per_sample_generators(0, range(400)), known)
    times = sampler.times(process, -12 - torch.tensor(6.0).log().item())
    alpha, sigma, _ = process.level(times[first_step(strength, 64)])
    variances, axes = torch.linalg.eigh(data.covariance)
    kept = alpha * variances.sqrt() / (alpha**2 * variances + sigma**2).sqrt()
    expected = axes @ (kept * (axes.T @ clip.double().flatten()))
    error = (clips.flatten(1).mean(0) - expected).abs().max()
    assert error < 5 * 0.5 / 400**0.5
    assert first_step(1.0, 64) == 0
    assert first_step(0.001, 64) == 63


@pytest.mark.parametrize("name", ["ddim", "pair"])
def test_a_walk_from_a_clip_begins_at_its_level(name: str) -> None:
    """Noise of 0 leaves alpha times the clip, of the whole state where the sampler walks states."""
    process, sampler = process_under(MedianProcess, "linear"), free(name)
    x_0 = torch.ones(1, *SHAPE)
    point = Point.at(process, torch.tensor(300))
    x = sampler.diffuse(x_0, point, process, lambda: torch.zeros_like(x_0))
    torch.testing.assert_close(x.reshape(-1, *x_0.shape)[0], point.alpha * x_0)
    if name == "pair":
        assert torch.allclose(x[1], float(process.level(299).alpha) * x_0)
