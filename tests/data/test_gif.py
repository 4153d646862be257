"""Decoding: against Pillow, against the file's own structure, and on broken files."""

import contextlib
import io
import pickle
from itertools import islice
from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data import gif, gif_blocks
from ddpm_lightning.data.gif import GifError, Limits, decode, encode, frames
from tests.data.shared import SHARED, gif_bytes, noise_clip, noise_gif, shared_gifs

SMALL_PALETTE = np.arange(0, 240, 20)[:12].reshape(4, 3)


def pillow_frames(data: bytes) -> np.ndarray:
    """(F, H, W, 3): what Pillow shows, on white."""
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
    sequence = pytest.importorskip("PIL.ImageSequence", reason="needs Pillow")
    with image_module.open(io.BytesIO(data)) as image:
        shown = [frame.convert("RGBA") for frame in sequence.Iterator(image)]
    white = image_module.new("RGBA", shown[0].size, "white")
    return np.stack(
        [np.asarray(image_module.alpha_composite(white, frame).convert("RGB")) for frame in shown]
    )


def cause_of(data: bytes, **limits: Any) -> str:
    with pytest.raises(GifError) as caught:
        decode(data, Limits(**limits))
    assert "\n" not in str(caught.value)
    return caught.value.cause


def random_images(seed: int, disposal: int) -> list[dict[str, Any]]:
    """Six patches with transparent holes on an 8x9 canvas; the last colour is the hole."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        height, width = generator.integers(1, 6, 2)
        images.append(
            {
                "indices": generator.integers(0, 4, (height, width)),
                "left": int(generator.integers(0, 8 - width + 1)),
                "top": int(generator.integers(0, 9 - height + 1)),
                "disposal": disposal,
                "transparent": 3,
            }
        )
    images[0] |= {"indices": generator.integers(0, 4, (9, 8)), "left": 0, "top": 0}
    return images


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_disposal_and_transparency_equal_pillow(disposal: int) -> None:
    for seed in range(20):
        data = gif_bytes((8, 9), random_images(seed, disposal))
        np.testing.assert_array_equal(decode(data).frames, pillow_frames(data))


def test_disposal_in_closed_form() -> None:
    """One red-ish pixel a frame on a white 3x1 canvas, removed or kept by its disposal."""
    images = [
        {"indices": [[1]], "left": i, "disposal": disposal} for i, disposal in enumerate((1, 2, 3))
    ]
    data = gif_bytes((3, 1), [*images, {"indices": [[2]], "left": 2}])
    one, two, white = SMALL_PALETTE[1], SMALL_PALETTE[2], [255] * 3
    expected = [[one, white, white], [one, one, white], [one, white, one], [one, white, two]]
    np.testing.assert_array_equal(decode(data).frames[:, 0], expected)


def test_cleared_canvas_is_white_whatever_the_background_colour() -> None:
    data = gif_bytes((2, 1), [{"indices": [[1]], "disposal": 2}] * 2, background=2)
    np.testing.assert_array_equal(decode(data).frames[:, 0, 1], [[255] * 3] * 2)


def test_the_mark_of_transparent_pixels_is_a_colour_of_its_own() -> None:
    palette = bytes(256) + bytes(range(256)) * 2
    marked, key = gif._marked_palette(palette, 7)
    colours = [marked[i : i + 3] for i in range(0, 768, 3)]
    assert colours.count(colours[7]) == 1
    assert key == 0xFF000000 | int.from_bytes(colours[7], "big")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["emoji", "video"])
def test_real_gifs_equal_pillow(kind: str) -> None:
    """Every 40th file; exact but where the two read the format differently, so the median is 0."""
    differences = []
    for path in shared_gifs(f"gifs/{kind}")[::40]:
        data = path.read_bytes()
        ours, theirs = decode(data).frames, pillow_frames(data)
        assert ours.shape == theirs.shape
        differences.append(np.abs(ours.astype(int) - theirs).mean())
    assert np.median(differences) == 0
    assert max(differences) < 1


def test_durations_are_the_stored_ones_and_tiny_delays_mean_100_ms() -> None:
    stored_cs = [0, 1, 2, 10, 300, 65535]
    data = gif_bytes((1, 1), [{"indices": [[1]], "delay_cs": delay} for delay in stored_cs])
    expected = [100, 100, 20, 100, 3000, 655350]
    assert decode(data).durations_ms.tolist() == expected


def test_gif87a_gives_every_frame() -> None:
    data = gif_bytes((2, 1), [{"indices": [[i, 3 - i]]} for i in range(4)], header=b"GIF87a")
    np.testing.assert_array_equal(decode(data).frames[:, 0, 0], SMALL_PALETTE)
    assert decode(data).durations_ms.tolist() == [100] * 4


def test_images_outside_the_canvas_are_clipped() -> None:
    data = gif_bytes((2, 2), [{"indices": np.ones((2, 2)), "left": 1, "top": 1}] * 2)
    shown = decode(data).frames
    assert shown.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(shown[0, 1, 1], SMALL_PALETTE[1])
    np.testing.assert_array_equal(shown[0, 0], 255)
    far = gif_bytes((2, 2), [{"indices": [[1]], "left": 500, "top": 500}])
    np.testing.assert_array_equal(decode(far).frames, 255)


def test_frames_come_one_at_a_time_and_stay_as_they_were() -> None:
    clip = noise_clip(seed=1)
    shown = frames(encode(clip, [50] * 5))
    first, duration_ms = next(shown)
    list(shown)
    np.testing.assert_array_equal(first, clip[0])
    assert first.flags.c_contiguous
    assert first.dtype == np.uint8
    assert duration_ms == 50


def test_canvases_are_the_frames_without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that nobody asks for are not decoded."""
    data = gif_bytes((8, 9), random_images(seed=1, disposal=3))
    shown = []
    arrays = set()
    for canvas, _ in gif.canvases(gif.walk(data, Limits())):
        shown.append(canvas[..., :3].copy())
        arrays.add(canvas.ctypes.data)
        np.testing.assert_array_equal(canvas[..., 3], 255)
    np.testing.assert_array_equal(shown, decode(data).frames)
    assert len(arrays) == 1

    decoded: list[object] = []
    decode_image = gif._decode_image

    def counted(*image: Any) -> Any:
        decoded.append(image)
        return decode_image(*image)

    monkeypatch.setattr("ddpm_lightning.data.gif._decode_image", counted)
    assert len(list(islice(gif.canvases(gif.walk(data, Limits())), 2))) == 2
    assert len(decoded) == 2


def ends_of_blocks(data: bytes) -> set[int]:
    """Where an image ends, as `walk` sees it: of a file cut there, all blocks are whole."""
    ends = set()
    for end in range(13, len(data)):
        with contextlib.suppress(GifError):
            gif.walk(data[:end], Limits())
            ends.add(end)
    return ends


def test_every_cut_inside_a_block_is_refused() -> None:
    data = noise_gif(seed=2)
    whole = ends_of_blocks(data)
    assert len(whole) == 9  # five images, and the controls between them
    causes = {cause_of(data[:end]) for end in set(range(6, len(data))) - whole}
    assert causes == {"truncated"}
    assert {cause_of(data[:end]) for end in range(6)} == {"not_a_gif"}


def test_cut_real_gifs_never_become_short_clips() -> None:
    generator = np.random.default_rng(3)
    for path in shared_gifs("gifs/video")[::25]:
        data = path.read_bytes()
        for end in generator.integers(13, len(data) - 1, 20):
            with contextlib.suppress(GifError):  # truncated
                assert gif.walk(data[:end], Limits()).note == "no_trailer"


def test_bytes_after_the_trailer_and_padding_are_ignored() -> None:
    data = noise_gif(seed=4)
    assert len(decode(data + data).frames) == 5
    assert len(decode(data[:-1] + b"\0\0\x3b").frames) == 5


ONE = {"indices": [[1]]}
BROKEN = {
    "empty": (b"", "not_a_gif"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "not_a_gif"),
    "no images": (gif_bytes((2, 2), []), "no_frames"),
    "no image before the end": (gif_bytes((2, 2), [], end=b""), "truncated"),
    "unknown block": (gif_bytes((2, 2), [], end=b"\x47\x3b"), "corrupt"),
    "no palette": (gif_bytes((2, 2), [ONE], palette=b""), "corrupt"),
    "no size at all": (gif_bytes((0, 2), [{"indices": np.ones((0, 2))}]), "corrupt"),
    "no image with data": (gif_bytes((2, 2), [ONE | {"data": b"\2\0"}]), "no_frames"),
    "short control": (gif_bytes((2, 2), [ONE], end=b"\x21\xf9\x01\x00\x00\x3b"), "corrupt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_their_cause(name: str) -> None:
    data, cause = BROKEN[name]
    assert cause_of(data) == cause


def test_image_data_that_end_early_are_corrupt() -> None:
    """The LZW stream of a 1x1 image under the descriptor of a larger one."""
    whole = gif_bytes((4, 4), [ONE])
    place = whole.index(b"\x2c") + 5
    assert cause_of(whole[:place] + b"\4\0\4\0" + whole[place + 4 :]) == "corrupt"


def test_an_impossible_code_size_is_corrupt() -> None:
    data = bytearray(gif_bytes((2, 2), [ONE]))
    data[data.index(b"\x2c") + 10] = 12
    assert cause_of(bytes(data)) == "corrupt"


def test_bombs_are_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("ddpm_lightning.data.gif._decode_image", fail)
    huge_canvas = gif_bytes((12000, 12000), [ONE])
    many = gif_bytes((4000, 4000), [ONE] * 7)
    image = gif_bytes((16, 16), [ONE])
    place = image.index(b"\x2c") + 5
    huge_image = image[:place] + b"\xff" * 4 + image[place + 4 :]
    for data in (huge_canvas, many, huge_image):
        assert cause_of(data) == "too_large"


def test_limits_hold_exactly() -> None:
    data = gif_bytes((3, 4), [ONE] * 5)
    exact = Limits(max_bytes=len(data), max_pixels=60, max_frames=5)
    assert len(decode(data, exact).frames) == 5
    assert cause_of(data, max_bytes=len(data) - 1) == "too_large"
    assert cause_of(data, max_pixels=59) == "too_large"
    assert cause_of(data, max_frames=4) == "too_large"
    assert len(decode(data, Limits(max_side=4)).frames) == 5
    assert cause_of(data, max_side=3) == "too_large"


def test_errors_survive_the_way_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(GifError("corrupt", "why")))
    assert (error.cause, str(error)) == ("corrupt", "corrupt: why")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [slice(0, None, 20), pytest.param(slice(None), marks=pytest.mark.long)], ids=str
)
def test_hostile_files_give_every_block_or_an_error(part: slice) -> None:
    """A few of the 511, and all of them."""
    paths = shared_gifs("hostile")[part]
    table = (SHARED / "hostile" / "hostile.tsv").read_text().splitlines()
    names = table[0].split("\t")
    rows = [dict(zip(names, line.split("\t"), strict=False)) for line in table[1:]]
    blocks = {row["file"]: int(row["frames_in_blocks"]) for row in rows}
    for path in paths:
        try:
            data = path.read_bytes()
            count = sum(1 for _ in frames(data))
        except GifError:
            continue
        if gif.walk(data, Limits()).note == "extra_bytes":  # which end the file
            assert count <= blocks[path.name], path.name
        else:
            assert count == blocks[path.name], path.name


def test_flipped_bits_give_every_block_or_an_error() -> None:
    generator = np.random.default_rng(5)
    data = noise_gif(seed=6)
    for _ in range(300):
        flipped = bytearray(data)
        flipped[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        try:
            count = len(decode(bytes(flipped)).frames)
        except GifError:
            continue
        assert count == len(gif_blocks.walk(bytes(flipped), Limits()).images)
