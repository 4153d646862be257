"""Encoding: exact up to 256 colours, close beyond, delays always kept."""

import io

import numpy as np
import pytest

from ddpm_lightning.data.gif import decode, encode
from tests.data.shared import noise_clip


@pytest.mark.parametrize("num_colours", [1, 2, 3, 17, 255, 256])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (2, 1, 300), (9, 32, 32)])
def test_round_trip_is_exact_up_to_256_colours(
    num_colours: int, shape: tuple[int, int, int]
) -> None:
    clip = noise_clip(num_colours, *shape, num_colours=num_colours)
    durations = np.random.default_rng(0).integers(2, 65536, shape[0]) * 10
    back = decode(encode(clip, durations))
    np.testing.assert_array_equal(back.frames, clip)
    np.testing.assert_array_equal(back.durations_ms, durations)


def test_identical_frames_stay_apart() -> None:
    """Seed 1; also pairs of equal frames within a clip, each with its own delay."""
    still = np.repeat(noise_clip(1, 1), 6, axis=0)
    pairs = np.repeat(noise_clip(1, 3), 2, axis=0)
    for clip in (still, pairs, np.zeros((6, 4, 4, 3), np.uint8)):
        back = decode(encode(clip, [20, 500, 30, 40, 1000, 70]))
        np.testing.assert_array_equal(back.frames, clip)
        assert back.durations_ms.tolist() == [20, 500, 30, 40, 1000, 70]


def test_sparse_motion_is_exact() -> None:
    """One pixel changes a frame, with black, white and the palette's padding colour in play."""
    clip = np.full((8, 5, 5, 3), 255, np.uint8)
    for i in range(8):
        clip[i, i % 5, (2 * i) % 5] = 0
    np.testing.assert_array_equal(decode(encode(clip, [100] * 8)).frames, clip)


def test_pillow_reads_the_same_frames_delays_and_endless_loop() -> None:
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
    clip = noise_clip(2, 4)
    with image_module.open(io.BytesIO(encode(clip, [20, 30, 40, 50]))) as image:
        assert image.info["loop"] == 0
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), clip[i])
            durations.append(image.info["duration"])
    assert durations == [20, 30, 40, 50]


def test_colourful_clips_stay_close() -> None:
    """Colours fill a box of 256 x 256 x 128 levels evenly. 256 equal cubes of side 32 would give a
    mean error of 32 / 4 = 8 levels, about the least possible; a quarter more is allowed."""
    ramp = np.arange(0, 256, 4)
    clip = np.stack(
        [np.stack(np.broadcast_arrays(ramp, ramp[:, None], 16 * i), -1) for i in range(8)]
    ).astype(np.uint8)
    data = encode(clip, [100] * 8)
    assert np.abs(decode(data).frames.astype(int) - clip).mean() < 10
    assert encode(clip, [100] * 8) == data


def test_257_colours_lose_almost_nothing() -> None:
    clip = np.zeros((1, 1, 257, 3), np.uint8)
    clip[0, 0, :, 0] = np.minimum(np.arange(257), 255)
    clip[0, 0, 256, 1] = 1
    assert np.abs(decode(encode(clip, [100])).frames.astype(int) - clip).mean() < 1


def test_durations_are_rounded_to_centiseconds() -> None:
    data = encode(noise_clip(3, 3), np.array([33, 36, 41.7]))
    assert decode(data).durations_ms.tolist() == [30, 40, 40]
