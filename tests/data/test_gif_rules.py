"""What browsers make of GIFs that the specification leaves open: a test for each row of the table
in data.gif_blocks.
"""

from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data.gif import DEFAULT_LIMITS, GifError, decode, walk
from tests.data.shared import gif_bytes
from tests.data.test_gif import SMALL_PALETTE, pillow_frames

WHITE = np.array([255] * 3)
FULL = np.arange(64).reshape(8, 8) % 4  # an image of four colours


def shown(canvas: tuple[int, int], *images: dict[str, Any], **parts: Any) -> np.ndarray:
    """The frames of a GIF of these images."""
    return decode(gif_bytes(canvas, images, **parts)).frames


@pytest.mark.parametrize("background", [0, 2])
def test_what_no_image_covers_is_white(background: int) -> None:
    (frame,) = shown((2, 1), {"indices": [[1]]}, background=background)
    np.testing.assert_array_equal(frame[0], [SMALL_PALETTE[1], WHITE])


@pytest.mark.parametrize("screen", [(1, 1), (0, 0), (0, 8), (8, 0), (7, 100), (65535, 7)])
def test_a_screen_smaller_than_the_first_frame_becomes_its_size(screen: tuple[int, int]) -> None:
    frames = shown(screen, {"indices": FULL, "left": 3, "top": 5}, {"indices": [[1]]})
    assert frames.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(frames[0], SMALL_PALETTE[FULL])
    np.testing.assert_array_equal(frames[1, 0, 0], SMALL_PALETTE[1])


@pytest.mark.parametrize(("left", "top"), [(0, 0), (6, 6), (500, 500)])
def test_later_frames_are_cut_at_the_edges(left: int, top: int) -> None:
    big = {"indices": np.ones((20, 20)), "left": left, "top": top}
    frames = shown((8, 8), {"indices": FULL}, big)
    expected = SMALL_PALETTE[FULL].copy()
    expected[top:, left:] = SMALL_PALETTE[1]
    np.testing.assert_array_equal(frames[1], expected)


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (5, 0)])
@pytest.mark.parametrize("first", [True, False])
def test_an_image_of_no_size_is_as_large_as_the_screen(size: tuple[int, int], first: bool) -> None:
    images: list[dict[str, Any]] = [{"indices": FULL}, {"indices": FULL[::-1], "size": size}]
    frames = shown((8, 8), *(images[::-1] if first else images))
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[0 if first else 1], SMALL_PALETTE[FULL[::-1]])


@pytest.mark.parametrize("disposal", range(8))
def test_disposal(disposal: int) -> None:
    """0, 1, 5 to 7 keep, 2 clears, 3 and 4 restore."""
    second = {"indices": [[2]], "disposal": disposal}
    data = gif_bytes((2, 1), [{"indices": [[1, 1]]}, second, {"indices": [[3]], "left": 1}])
    last = decode(data).frames[2, 0]
    one, two, three = SMALL_PALETTE[1:]
    left = {2: WHITE, 3: one, 4: one}.get(disposal, two)
    np.testing.assert_array_equal(last, [left, three])
    if disposal in (0, 1, 3, 4):  # Pillow clears to the background, and restores for 5 to 7, too
        np.testing.assert_array_equal(last, pillow_frames(data)[2, 0])


@pytest.mark.parametrize(
    ("delay_cs", "ms"), [(0, 100), (1, 100), (2, 20), (7, 70), (65535, 655350)]
)
def test_delays(delay_cs: int, ms: int) -> None:
    data = gif_bytes((1, 1), [{"indices": [[1]], "delay_cs": delay_cs}])
    assert decode(data).durations_ms.tolist() == [ms]


@pytest.mark.parametrize(
    "end", [b"", b"\0", b"\x21\xfe\x01x\0", b"\x21\xf9\x04\0\0\0\0\0"], ids=repr
)
def test_a_missing_trailer_is_noted_where_every_block_is_whole(end: bytes) -> None:
    data = gif_bytes((2, 2), [{"indices": [[1]]}] * 2, end=end)
    assert len(decode(data).frames) == 2
    assert walk(data, DEFAULT_LIMITS).note == "no_trailer"
    for cut in range(1, len(end) - 1) if len(end) > 1 else [-2, -3]:
        short = data[: len(data) - len(end) + cut]
        with pytest.raises(GifError, match="truncated"):
            decode(short)


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (b"\x3b", ""),
        (b"\x3bGIF89a\x2c", ""),
        (b"\0\0\x3b", ""),
        (b"\x47\x3b", "extra_bytes"),
        (b"\r\n", "extra_bytes"),
        (b"<!-- -->", "extra_bytes"),
    ],
)
def test_extra_bytes_end_the_file(end: bytes, note: str) -> None:
    data = gif_bytes((2, 2), [{"indices": [[1]]}] * 2, end=end)
    assert len(decode(data).frames) == 2
    assert walk(data, DEFAULT_LIMITS).note == note


def test_rows_of_an_interlaced_image_are_put_in_their_order() -> None:
    order = [*range(0, 8, 8), *range(4, 8, 8), *range(2, 8, 4), *range(1, 8, 2)]
    (frame,) = shown((8, 8), {"indices": FULL[order], "interlaced": 1})
    np.testing.assert_array_equal(frame, SMALL_PALETTE[FULL])


@pytest.mark.parametrize("where", range(3))
def test_an_empty_image_shows_what_was_there_for_its_time(where: int) -> None:
    images: list[dict[str, Any]] = [{"indices": [[1]]}, {"indices": [[2]]}]
    images.insert(where, {"indices": [[3]], "data": b"\2\0", "delay_cs": 50})
    clip = decode(gif_bytes((1, 1), images))
    expected = [SMALL_PALETTE[1], SMALL_PALETTE[2]]
    expected.insert(where, [WHITE, SMALL_PALETTE[1], SMALL_PALETTE[2]][where])
    np.testing.assert_array_equal(clip.frames[:, 0, 0], expected)
    assert clip.durations_ms[where] == 500


@pytest.mark.parametrize("index", [1, 3, 200])
def test_only_the_transparent_index_of_an_image_shows_what_is_below(index: int) -> None:
    over = {"indices": [[1, 2, 3]], "transparent": index}
    _, frame, after = shown((3, 1), {"indices": [[0, 0, 0]]}, over, {"indices": [[1, 2, 3]]})
    expected = [SMALL_PALETTE[0 if i == index else i] for i in (1, 2, 3)]
    np.testing.assert_array_equal(frame[0], expected)
    np.testing.assert_array_equal(after[0], SMALL_PALETTE[1:])


@pytest.mark.parametrize("shared", [None, b""])
def test_a_local_palette_holds_for_its_image_alone(shared: bytes | None) -> None:
    own = bytes(range(100, 112))
    images: list[dict[str, Any]] = [{"indices": [[1]], "palette": own}]
    images += [{"indices": [[1]]}] if shared is None else [{"indices": [[1]], "palette": own[::-1]}]
    frames = shown((1, 1), *images, palette=shared)
    second = SMALL_PALETTE[1] if shared is None else [108, 107, 106]
    np.testing.assert_array_equal(frames[:, 0, 0], [[103, 104, 105], second])
