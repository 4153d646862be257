"""Moving digits have known answers: near perfect of the data, and not of what breaks them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from benchmarks.corruptions import cut, jitter, shuffle
from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.evaluation.digits import agreement, bounce_error, read_as, speed_deviation

FPS = 10.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """40 clips of 8 frames at 16 pixels, as the default run trains on them."""
    source = MovingDigits(tmp_path_factory.mktemp("digits") / "gifs", num_clips=40)
    recipe = Recipe(16, 16, FPS, channels=1)
    frames = [decode(source.read(key), recipe).clip[:8] for key in source.keys()]  # noqa: SIM118
    return torch.from_numpy(np.stack(frames))


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(0)


def blobs(rows: list[float]) -> Tensor:
    """A clip of a 6 pixel bar, of the canvas, around these rows."""
    canvas = torch.arange(32) + 0.5
    bars = [((canvas - row).abs() < 3)[:, None] * (canvas[None] - 16 < 3) for row in rows]
    return (255 * torch.stack(bars)).byte()[None, ..., None]


@pytest.mark.slow
def test_digits_of_the_data_are_near_perfect(clips: Tensor) -> None:
    """Rendering to 16 pixels costs a few hundredths of a pixel, and no digit."""
    assert agreement(clips)[0] > 0.99
    assert speed_deviation(clips, FPS)[0] < 0.05
    assert bounce_error(clips, FPS)[0] < 0.06


@pytest.mark.slow
def test_digits_of_the_data_are_read_as_their_labels(clips: Tensor) -> None:
    """All but one of forty, at most."""
    labels = torch.from_numpy(load_digits().target[: len(clips)])
    assert read_as(clips, labels)[0] > 0.97
    assert read_as(clips, (labels + 1) % 10)[0] < 0.03


def test_a_clip_that_turns_into_another_agrees_in_half_its_pairs(
    clips: Tensor, generator: Generator
) -> None:
    """Of 28 pairs of 8 frames 12 lie in one half; one pair of digits in ten is equal by chance."""
    value, error = agreement(cut(clips, generator))
    assert abs(value - (12 + 16 * 0.1) / 28) < 4 * error


def test_jittered_and_shuffled_digits_neither_keep_speed_nor_bounce(
    clips: Tensor, generator: Generator
) -> None:
    for corruption in (jitter, shuffle):
        corrupted = corruption(clips, generator)
        assert speed_deviation(corrupted, FPS)[0] > 0.3
        assert bounce_error(corrupted, FPS)[0] > 0.8


def test_digits_beside_their_walls_break_the_law_and_keep_their_speed(clips: Tensor) -> None:
    reach = clips.amax((0, 1, 4)).amax(0).nonzero().max()  # all clips end at the right wall
    assert reach == 15
    beside = clips[:, :, :, 4:]  # the left wall lies 8 of 32 pixels further on
    moved = torch.cat([beside, torch.zeros_like(clips[:, :, :, :4])], 3)
    whole = (moved.float().sum((2, 3, 4)) > 0.98 * clips.float().sum((2, 3, 4))).all(1)
    assert whole.sum() > 5  # of the others a part is cut off
    # digits differ in where their centre lies, which hides a part of the distance
    assert bounce_error(moved[whole], FPS)[0] > 4 * bounce_error(clips[whole], FPS)[0]
    assert speed_deviation(moved[whole], FPS)[0] < 0.1


def test_a_turn_far_from_a_wall_breaks_the_law(clips: Tensor) -> None:
    """From row 13 to 17 and back, at 1 pixel a frame: turns lie near 10 and 22."""
    turning = blobs([13.0, 14, 15, 16, 17, 16, 15, 14, 13])
    straight = blobs([13.0, 14, 15, 16, 17, 18, 19, 20, 21])
    turned, _ = bounce_error(torch.cat([turning, turning]), FPS)
    passed, _ = bounce_error(torch.cat([straight, straight]), FPS)
    assert turned > passed + 0.3


def test_standard_errors_are_over_clips(clips: Tensor) -> None:
    value, error = bounce_error(clips, FPS)
    twice_value, twice_error = bounce_error(clips.repeat(2, 1, 1, 1, 1), FPS)
    assert twice_value == pytest.approx(value, rel=1e-12)
    assert twice_error == pytest.approx(error * (39 / 79) ** 0.5, rel=1e-9)


def test_small_oblong_and_resampled_clips_are_refused(clips: Tensor) -> None:
    with pytest.raises(ValueError, match=r"square and at least 16 pixels a side, got 16 x 12"):
        agreement(clips[:, :, :, :12])
    with pytest.raises(ValueError, match=r"at least 16 pixels a side, got 8 x 8; train with"):
        speed_deviation(clips[:, :, :8, :8], FPS)
    with pytest.raises(ValueError, match=r"at 10 frames a second .* got fps=7.5; train with"):
        bounce_error(clips, 7.5)
