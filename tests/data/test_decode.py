"""One GIF to one clip: what is refused and why, and what a clip shows, against Pillow."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data import gif
from ddpm_lightning.data.clip import ClipFormat, resize
from ddpm_lightning.data.decode import FETCHED_LIMITS, Recipe, decode
from ddpm_lightning.data.gif import GifError, Limits, encode
from tests.data.shared import gif_bytes, noise_gif, shared_gifs
from tests.data.test_gif import pillow_frames

RECIPE = Recipe(height=4, width=6, fps=10)
DOT = {"indices": [[1]]}


def cause_of(data: bytes, **changes: Any) -> str:
    with pytest.raises(GifError) as caught:
        decode(data, replace(RECIPE, **changes))
    assert "\n" not in str(caught.value)
    return caught.value.cause


def test_what_a_decoded_gif_knows() -> None:
    dark, light = np.full((8, 12, 3), 40, np.uint8), np.full((8, 12, 3), 240, np.uint8)
    data = encode(np.stack([dark] * 3 + [light] * 2), [100, 100, 100, 200, 200])
    decoded = decode(data, RECIPE)
    np.testing.assert_array_equal(decoded.clip[:, 1, 2, 0], [40] * 3 + [240] * 4)
    assert decoded.clip.shape == (7, 4, 6, 3)
    assert decoded.seconds == pytest.approx(0.7)
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    assert decoded.shots == (0, 3)
    assert (decoded.width, decoded.height, decoded.num_gif_frames) == (12, 8, 5)
    assert decoded.gif_fps == pytest.approx(5 / 0.7)


def test_delays_of_0_and_1_hundredths_last_100_ms() -> None:
    for delay_cs in (0, 1):
        images = [{"indices": [[k]], "delay_cs": delay_cs} for k in range(3)]
        assert decode(gif_bytes((1, 1), images), RECIPE).seconds == pytest.approx(0.3)


def test_gifs_that_show_one_picture_are_stills() -> None:
    assert cause_of(gif_bytes((2, 2), [DOT])) == "still"
    assert cause_of(gif_bytes((2, 2), [DOT] * 9)) == "still"
    assert cause_of(noise_gif(seed=0, num_frames=2, duration_ms=20), fps=1) == "still"
    decode(gif_bytes((2, 2), [DOT] * 9 + [{"indices": [[2]]}]), RECIPE)


def test_the_duration_filter_includes_its_bounds() -> None:
    data = noise_gif(seed=1, num_frames=10, duration_ms=100)
    assert cause_of(data, min_seconds=1.01) == "too_short"
    assert cause_of(data, max_seconds=0.99) == "too_long"
    decode(data, replace(RECIPE, min_seconds=1, max_seconds=1))


def test_limits_hold_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("ddpm_lightning.data.gif._decode_image", fail)
    wide = gif_bytes((4097, 1), [DOT])
    many = gif_bytes((1, 1), [DOT] * 2001)
    large = gif_bytes((4000, 4000), [DOT] * 26)
    whole = gif_bytes((16, 16), [DOT])
    place = whole.index(b"\x2c") + 5
    wide_image = whole[:place] + b"\x01\x10" + whole[place + 2 :]  # 4097 pixels
    for data in (wide, many, large, wide_image):
        assert cause_of(data) == "too_large"


def test_a_clip_never_takes_more_memory_than_64_mib() -> None:
    data = gif_bytes((1, 1), [DOT | {"delay_cs": 1000}, {"indices": [[2]]}])
    assert cause_of(data, height=512, width=512) == "too_long"
    assert len(decode(data, RECIPE).clip) == 101


def test_files_of_a_users_own_differ_in_their_limits_alone() -> None:
    data = gif_bytes((1, 1), [DOT | {"delay_cs": 1000}])
    own = replace(RECIPE, height=512, width=512, limits=Limits())
    assert cause_of(data) == "still"
    assert decode(data, own).clip.nbytes > FETCHED_LIMITS.max_clip_bytes
    smaller = replace(Limits(), max_clip_bytes=100 * 512 * 512 * 3 - 1)
    assert cause_of(data, height=512, width=512, limits=smaller) == "too_long"


def test_broken_files_keep_their_cause() -> None:
    data = noise_gif(seed=2)
    assert cause_of(data[:-2]) == "truncated"
    assert cause_of(b"<html>") == "not_a_gif"


def test_the_digest_names_everything_that_determines_a_clip() -> None:
    changes: dict[str, Any] = {
        "height": 5,
        "width": 5,
        "fps": 12,
        "channels": 1,
        "min_seconds": 1.0,
        "max_seconds": 9.0,
    }
    limits = {"max_frames": 9, "max_clip_bytes": 9, "min_pictures": 9}
    digests = {replace(RECIPE, **{name: value}).digest() for name, value in changes.items()} | {
        replace(RECIPE, limits=replace(FETCHED_LIMITS, **{name: value})).digest()
        for name, value in limits.items()
    }
    assert len(digests | {RECIPE.digest()}) == 1 + len(changes) + len(limits)
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)
    assert replace(RECIPE).digest() == RECIPE.digest()


def test_the_stores_that_are_there_keep_their_names() -> None:
    """As they were before limits spoke of clips, too."""
    digests = [replace(RECIPE, limits=limits).digest() for limits in (FETCHED_LIMITS, Limits())]
    assert digests == ["dedd09d2a83b2835", "0cf7ef85c278fa09"]


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fps must be at least 0\.001526 and finite, got 0"):
        Recipe(4, 4, fps=0)


def area_filtered(frames: np.ndarray, clip_format: ClipFormat) -> np.ndarray:
    """(F, h, w, 3) float: exact means, as differences of the integral, which is linear between
    pixels. Pillow's own BOX weighs a pixel by 0 or 1 only."""
    sizes = (clip_format.height, clip_format.width)
    scale = min(frames.shape[1] / sizes[0], frames.shape[2] / sizes[1])
    for axis, new in zip((1, 2), sizes, strict=True):
        old = frames.shape[axis]
        edges = (old - new * scale) / 2 + scale * np.arange(new + 1)
        along = np.moveaxis(frames.astype(float), axis, -1)
        total = np.concatenate([np.zeros((*along.shape[:-1], 1)), along.cumsum(-1)], axis=-1)
        low = np.clip(np.floor(edges).astype(int), 0, old - 1)
        integral = total[..., low] + (edges - low) * along[..., low]
        frames = np.moveaxis(np.diff(integral, axis=-1) / scale, -1, axis)
    return frames


def assert_close_to_pillow(data: bytes, clip_format: ClipFormat) -> None:
    frames = gif.canvases(gif.walk(data, FETCHED_LIMITS))
    ours = np.stack([resize(canvas, clip_format) for canvas, _ in frames])
    theirs = area_filtered(pillow_frames(data), clip_format)
    assert np.abs(ours - theirs).max() < 0.5 + 1e-3  # rounding to bytes


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_pixels_equal_pillow_composited_and_area_filtered(disposal: int) -> None:
    """Patches with holes on a 45x37 canvas."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        images = []
        for height, width in [(37, 45), *generator.integers(5, 30, (6, 2)).tolist()]:
            images.append(
                {
                    "indices": generator.integers(0, 4, (height, width)),
                    "left": int(generator.integers(0, 46 - width)),
                    "top": int(generator.integers(0, 38 - height)),
                    "disposal": disposal,
                    "transparent": 3,
                }
            )
        data = gif_bytes((45, 37), images)
        assert_close_to_pillow(data, ClipFormat(8, 7, 1, 1))


@pytest.mark.slow
def test_real_gifs_are_within_round_off_of_pillow() -> None:
    for path in shared_gifs("gifs/video")[::90]:
        assert_close_to_pillow(path.read_bytes(), ClipFormat(48, 64, 1, 1))


@pytest.mark.slow
def test_decoding_does_not_load_torch() -> None:
    """It would take 200 MB of each worker's memory."""
    program = "import ddpm_lightning.data.ingest.worker, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
