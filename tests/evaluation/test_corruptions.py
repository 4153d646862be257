"""Corruptions change what they name and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from benchmarks.corruptions import CORRUPTIONS, Corruption
from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.evaluation.distances import Scale, floor, polynomial_mmd
from ddpm_lightning.evaluation.features.pixels import Pixels
from tests.evaluation.features.shared import noise_clips

CLIPS = noise_clips(8, num_frames=6, size=16)


def corrupt(name: str, clips: Tensor = CLIPS, seed: int = 0) -> Tensor:
    return CORRUPTIONS[name](clips, Generator().manual_seed(seed))


def test_there_are_ten() -> None:
    assert len(CORRUPTIONS) == 10


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
@pytest.mark.parametrize("channels", [1, 3])
def test_clips_stay_clips_and_a_seed_decides(corruption: Corruption, channels: int) -> None:
    clips = noise_clips(8, num_frames=6, channels=channels)
    before = clips.clone()
    corrupted = corruption(clips, Generator().manual_seed(0))
    assert corrupted.shape == clips.shape
    assert corrupted.dtype == torch.uint8
    assert not torch.equal(corrupted, clips)
    assert torch.equal(clips, before)
    assert torch.equal(corruption(clips, Generator().manual_seed(0)), corrupted)


def test_noise_has_a_deviation_of_8_levels() -> None:
    grey = torch.full((4, 4, 16, 16, 3), 128, dtype=torch.uint8)
    error = corrupt("noise", grey).float() - 128
    assert error.std() == pytest.approx((64 + 1 / 12) ** 0.5, rel=0.02)  # 12,288 values: to 0.6 %
    assert abs(error.mean()) < 5 * 8 / error.numel() ** 0.5


def test_blur_keeps_brightness_and_loses_detail() -> None:
    blurred = corrupt("blur").float()
    assert blurred.mean() == pytest.approx(float(CLIPS.float().mean()), abs=1)
    assert blurred.std() < 0.5 * CLIPS.float().std()  # of white noise 1 / (2 sqrt(pi)) is left


@pytest.mark.parametrize("name", ["shift", "jitter"])
def test_moved_frames_hold_the_same_pixels(name: str) -> None:
    moved = corrupt(name)
    for one, other in zip(moved.flatten(0, 1), CLIPS.flatten(0, 1), strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)


def test_shift_is_one_for_a_clip_and_jitter_one_for_a_frame() -> None:
    still = CLIPS[:, :1].expand_as(CLIPS)
    assert torch.equal(corrupt("shift", still).diff(dim=1).count_nonzero(), torch.tensor(0))
    assert corrupt("jitter", still).diff(dim=1).count_nonzero() > 0


def test_shuffled_clips_hold_the_same_frames() -> None:
    shuffled = corrupt("shuffle")
    same = (shuffled[:, :, None] == CLIPS[:, None]).flatten(3).all(3)  # (N, F, F)
    assert torch.equal(same.sum(1), torch.ones(8, 6, dtype=torch.long))
    assert torch.equal(same.sum(2), torch.ones(8, 6, dtype=torch.long))


def test_frozen_clips_stand_still_from_their_middle_on() -> None:
    frozen = corrupt("freeze")
    assert torch.equal(frozen[:, :4], CLIPS[:, :4])
    assert torch.equal(frozen[:, 3:], CLIPS[:, 3:4].expand(-1, 3, -1, -1, -1))


def test_a_clip_reversed_twice_is_itself() -> None:
    assert torch.equal(corrupt("reverse", corrupt("reverse")), CLIPS)


def test_cut_clips_go_on_as_another_each() -> None:
    halves = corrupt("cut")
    assert torch.equal(halves[:, :3], CLIPS[:, :3])
    source = (halves[:, None, 3:] == CLIPS[None, :, 3:]).flatten(2).all(2)  # (N, N)
    assert torch.equal(source.sum(0), torch.ones(8, dtype=torch.long))
    assert not source.diagonal().any()


def test_lost_modes_are_the_brighter_half() -> None:
    clips = noise_clips(20, size=8) // 2 + 6 * torch.arange(20, dtype=torch.uint8).view(
        -1, 1, 1, 1, 1
    )
    kept = corrupt("lost_modes", clips)
    assert kept.float().mean((1, 2, 3, 4)).max() <= clips.float().mean((1, 2, 3, 4)).median()


def test_every_copy_is_one_of_the_clips() -> None:
    same = (corrupt("copies")[:, None] == CLIPS).flatten(2).all(2)
    assert torch.equal(same.sum(1), torch.ones(8, dtype=torch.long))


@pytest.mark.slow
def test_pixels_see_broken_motion_in_the_temporal_features_alone(tmp_path: Path) -> None:
    """Of moving digits, in deviations of real against real; below 3 a corruption is not seen."""
    n = 60
    source, recipe = MovingDigits(tmp_path / "gifs", num_clips=3 * n), Recipe(16, 16, 10, 1)
    frames = [decode(source.read(key), recipe).clip[:8] for key in source.keys()]  # noqa: SIM118
    mixed = torch.randperm(3 * n, generator=Generator().manual_seed(0))  # writers follow each other
    real = torch.from_numpy(np.stack(frames))[mixed]
    samples = real[2 * n :]
    features = Pixels().pair(real)
    scales = [Scale.of(known[:n]) for known in features]
    standard = [scale(known) for scale, known in zip(scales, features, strict=True)]
    deviations = [floor(polynomial_mmd, known, n, n).std for known in standard]

    def sigmas(name: str) -> list[float]:
        corrupted = Pixels().pair(corrupt(name, samples))
        return [
            polynomial_mmd(scale(features), known[n : 2 * n]) / deviation
            for scale, known, deviation, features in zip(
                scales, standard, deviations, corrupted, strict=True
            )
        ]

    seen = {name: sigmas(name) for name in CORRUPTIONS}
    assert all(seen[name][1] > 5 for name in ("jitter", "shuffle", "cut"))
    assert max(map(abs, [seen["shuffle"][0], seen["cut"][0], *seen["reverse"]])) < 3
