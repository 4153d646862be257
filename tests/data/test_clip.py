"""Clips: the GIF's own clock, the area filter, and bytes to floats and back."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ddpm_lightning.data.clip import ClipFormat, resample, resize, to_float, to_uint8
from ddpm_lightning.data.gif import GifError


def grey_levels(
    levels: Sequence[int], durations_ms: Sequence[int], height: int = 4, width: int = 4
) -> Iterator[tuple[np.ndarray, int]]:
    for level, duration_ms in zip(levels, durations_ms, strict=True):
        yield np.full((height, width, 3), level, np.uint8), duration_ms


def tiny(fps: float, **changes: Any) -> ClipFormat:
    return ClipFormat(**{"height": 2, "width": 2, "num_frames": 4, "fps": fps} | changes)


@pytest.mark.parametrize("fps", [1, 3, 8, 10, 12.5, 25, 29.97])
def test_resample_shows_what_the_gif_shows_at_each_instant(fps: float) -> None:
    durations = [20, 500, 30, 40, 1000, 70, 110]
    clip = resample(grey_levels(range(7), durations), tiny(fps))
    assert len(clip) == max(1, round(sum(durations) / 1000 * fps))
    ends = np.cumsum(durations)
    expected = [int(np.searchsorted(ends, k * 1000 / fps, side="right")) for k in range(len(clip))]
    assert clip[:, 0, 0, 0].tolist() == expected


def test_resample_at_the_gifs_rate_keeps_every_frame() -> None:
    clip = resample(grey_levels(range(50), [40] * 50), tiny(25))
    assert clip[:, 1, 1, 2].tolist() == list(range(50))


def test_a_very_short_gif_is_one_frame() -> None:
    assert resample(grey_levels([7, 8], [20, 20]), tiny(1))[:, 0, 0, 0].tolist() == [7]


def test_frames_that_are_not_shown_are_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[int] = []

    def recorded(frame: np.ndarray, _: ClipFormat) -> np.ndarray:
        resized.append(int(frame[0, 0, 0]))
        return frame

    monkeypatch.setattr("ddpm_lightning.data.clip.resize", recorded)
    resample(grey_levels(range(100), [20] * 100), tiny(5))
    assert resized == list(range(0, 100, 10))


def test_a_long_delay_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(GifError) as caught:
        resample(grey_levels([1], [655350]), tiny(10))
    assert caught.value.cause == "too_long"
    assert len(resample(grey_levels([1], [1000]), tiny(10), max_frames=10)) == 10


def test_whole_factors_give_the_block_mean() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    small = resize(frame, tiny(1, height=4, width=6))
    mean = frame.reshape(4, 3, 6, 3, 3).mean((1, 3))
    np.testing.assert_allclose(small, mean, atol=0.5 + 1e-4)  # rounding to bytes


def test_fractional_factors_share_pixels_by_area() -> None:
    frame = np.repeat(np.array([0, 90, 180], np.uint8)[None, :, None], 3, axis=0)
    small = resize(np.repeat(frame, 3, axis=2), tiny(1, height=2, width=2))
    np.testing.assert_array_equal(small[..., 0], [[30, 150]] * 2)  # (0 + 90/2)/1.5, (45 + 180)/1.5


def test_the_box_is_covered_and_the_centre_cut() -> None:
    frame = np.zeros((4, 12, 3), np.uint8)
    frame[:, 4:8] = 200
    np.testing.assert_array_equal(resize(frame, tiny(1)), 200)
    np.testing.assert_array_equal(resize(frame.swapaxes(0, 1), tiny(1)), 200)


def test_enlarging_by_whole_factors_repeats_pixels() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    large = resize(frame, tiny(1, height=6, width=6))
    np.testing.assert_array_equal(large, frame.repeat(2, 0).repeat(2, 1))


def test_a_constant_stays_constant_at_any_size() -> None:
    for size in range(1, 40):
        frame = np.full((17, 23, 3), 201, np.uint8)
        for channels in (1, 3):
            small = resize(frame, tiny(1, height=size, width=2 * size, channels=channels))
            assert small.shape == (size, 2 * size, channels)
            assert small.flags.c_contiguous
            np.testing.assert_array_equal(small, 201)


def test_grey_is_rec_601_luma() -> None:
    frame = np.zeros((2, 2, 3), np.uint8) + np.array([100, 200, 50], np.uint8)
    small = resize(frame, tiny(1, channels=1))
    np.testing.assert_array_equal(small, round(0.299 * 100 + 0.587 * 200 + 0.114 * 50))


def test_floats_and_bytes_are_inverse() -> None:
    clip = torch.arange(256, dtype=torch.uint8).reshape(1, 2, 8, 16, 1).expand(3, 2, 8, 16, 3)
    x = to_float(clip)
    assert x.shape == (3, 3, 2, 8, 16)
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert torch.equal(to_uint8(x), clip)


def test_to_uint8_clamps_and_rounds() -> None:
    x = torch.tensor([-7.0, -1, -0.999, 0.999, 1, 7]).reshape(1, 1, 1, 6)
    assert to_uint8(x).ravel().tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": -1}, "width must be at least 1, got -1"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"fps": 0.0}, "fps must be at least 0.001526 and finite, got 0.0"),
        ({"fps": float("nan")}, "fps must be at least 0.001526 and finite, got nan"),
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(RGB\), got 4"),
    ],
)
def test_wrong_formats_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**{"fps": 10} | changes)
