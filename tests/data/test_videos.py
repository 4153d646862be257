"""Other formats than GIF come to clips by the same way: videos, and whatever a source can open."""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from ddpm_lightning.data.animation import Animation
from ddpm_lightning.data.build import build
from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.gif import GifError, Limits, encode
from ddpm_lightning.data.sources.base import Source
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.sources.videos import VideoFolder, read_video
from ddpm_lightning.data.store import ClipStore
from tests.data.shared import noise_clip, video_bytes

DURATIONS_MS = [100, 40, 260, 100, 20]
RECIPE = Recipe(height=6, width=7, fps=10, limits=VideoFolder.limits)


def test_a_video_gives_what_the_gif_of_its_frames_gives() -> None:
    """Without loss, at five unlike durations."""
    clip = noise_clip(seed=0)
    film, gif = video_bytes(clip, DURATIONS_MS), encode(clip, DURATIONS_MS)
    ours, theirs = decode(film, RECIPE, read_video), decode(gif, RECIPE)
    np.testing.assert_array_equal(ours.clip, theirs.clip)
    assert ours.facts() | {"sha256": theirs.sha256} == theirs.facts()


def test_frames_that_are_stored_out_of_order_are_shown_in_order() -> None:
    """MPEG-4 with two B-frames between others; each of 12 frames is 20 grey levels brighter."""
    levels = 20 * np.arange(12, dtype=np.uint8)
    frames = np.tile(levels[:, None, None, None], (1, 32, 32, 3))
    data = video_bytes(frames, [20] * 12, "mpeg4", "mp4")
    with av.open(io.BytesIO(data), "r") as container:
        stamps = [packet.pts for packet in container.demux() if packet.pts is not None]
    assert stamps != sorted(stamps)
    clip = decode(data, replace(RECIPE, fps=50), read_video).clip
    assert len(clip) == 12
    assert np.abs(clip.mean(axis=(1, 2, 3)) - levels).max() < 10


@pytest.mark.parametrize(("degrees", "cosine", "sine"), [(90, 0, 1), (180, -1, 0), (270, 0, -1)])
def test_a_video_is_shown_as_the_telephone_was_held(degrees: int, cosine: int, sine: int) -> None:
    """A track's matrix takes (x, y) to (cos x - sin y, sin x + cos y), y down: with the clock."""
    clip = noise_clip(seed=2)
    rows = [[1, 0, 0, 0, 1, 0, 0, 0, 2**14], [cosine, sine, 0, -sine, cosine, 0, 0, 0, 2**14]]
    upright, turned = (struct.pack(">9i", *(2**16 * v for v in row)) for row in rows)
    before, after = video_bytes(clip, DURATIONS_MS).rsplit(upright, 1)  # the track's is the last
    animation = read_video(before + turned + after, Limits())
    expected = np.rot90(clip, -degrees // 90, axes=(1, 2))
    assert (animation.height, animation.width) == expected.shape[1:3]
    np.testing.assert_array_equal([frame for frame, _ in animation.frames], expected)


@pytest.mark.parametrize(
    ("damage", "limits", "cause"),
    [
        (lambda data: data, Limits(max_frames=4), "too_large"),
        (lambda data: data, Limits(max_pixels=5 * 42 - 1), "too_large"),
        (lambda data: data[:100], Limits(), "corrupt"),
        (lambda data: b"<html>", Limits(), "corrupt"),
        (lambda data: data.replace(b"\x89PNG", b"\x89PNX"), Limits(), "corrupt"),
        (
            lambda data: data.replace(struct.pack(">I", 12800), struct.pack(">I", 2**31 - 1)),
            Limits(),  # units of time of half a nanosecond
            "still",
        ),
    ],
)
def test_what_cannot_be_used_has_a_cause(
    damage: Callable[[bytes], bytes], limits: Limits, cause: str
) -> None:
    data = damage(video_bytes(noise_clip(seed=1), DURATIONS_MS))
    with pytest.raises(GifError) as caught:
        list(read_video(data, limits).frames)
    assert caught.value.cause == cause
    assert "\n" not in str(caught.value)


class Sequences(Source):
    """Folders of PNG files, 25 a second: what somebody would write for their own format."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> list[str]:
        return sorted(folder.name for folder in self.path.iterdir())

    def read(self, key: str) -> bytes:
        return b"".join(file.read_bytes() for file in sorted((self.path / key).iterdir()))

    def open(self, data: bytes, limits: Limits) -> Animation:
        return read_video(data, limits, "png_pipe")

    def fingerprint(self) -> str:
        return str(self.keys())

    def describe(self) -> str:
        return str(self.path)


def test_a_source_of_image_sequences_is_one_class(tmp_path: Path) -> None:
    """Its store is that of GIFs with the same frames at 40 ms; a sequence twice is a duplicate."""
    (tmp_path / "gifs").mkdir()
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 7, 6, "rgb24"
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        clip = noise_clip(seed)
        (tmp_path / "gifs" / f"{name}.gif").write_bytes(encode(clip, [40] * len(clip)))
        (tmp_path / "png" / name).mkdir(parents=True)
        for k, pixels in enumerate(clip):
            (packet,) = encoder.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
            (tmp_path / "png" / name / f"{k:03d}.png").write_bytes(bytes(packet))
    ours, theirs = (
        build(source, RECIPE, tmp_path / "cache")
        for source in (Sequences(tmp_path / "png"), GifFolder(tmp_path / "gifs"))
    )
    assert clips(ours) == clips(theirs)
    assert len(ours) == 2
    assert ours.skipped_keys == {"c": "duplicate"}


def clips(store: ClipStore) -> list[bytes]:
    return [store.clip(i).tobytes() for i in range(len(store))]
