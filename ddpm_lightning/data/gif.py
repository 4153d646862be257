"""GIF bytes to frames, composited on white; the way back, encode, is re-exported here.

FFmpeg (through PyAV) decodes the LZW data of one image at a time, handed to it as a GIF of its
own with the format fixed, so nothing is probed and no frame can be dropped. The structure comes
from gif_blocks: canvas, rectangles, delays, disposal, and the number of images, which is the
number of frames. Compositing is done here, with the rules that browsers follow: outside every
image, and where one is cleared, the canvas is transparent, which means white.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from ddpm_lightning.data.gif_blocks import (
    DEFAULT_LIMITS,
    Cause,
    GifError,
    ImageBlock,
    Limits,
    Structure,
    walk,
)
from ddpm_lightning.data.gif_encode import encode

__all__ = [
    "DEFAULT_LIMITS",
    "Cause",
    "Frames",
    "GifError",
    "Limits",
    "decode",
    "durations_ms",
    "encode",
    "frames",
]

_PIXEL = np.dtype("<u4")  # blue, green, red, alpha in memory
_WHITE = 0xFFFFFFFF
_OPAQUE_BLACK = 0xFF000000
_CLEAR, _RESTORE = 2, 3


class Frames(NamedTuple):
    """A decoded GIF: frames (F, H, W, 3) uint8, durations_ms (F,) int64."""

    frames: np.ndarray
    durations_ms: np.ndarray


def frames(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (frame (H, W, 3) uint8, duration_ms) one at a time; there is one per image block.

    Raises GifError: at once when the structure is at fault, while iterating when an image is.
    """
    return _composite(walk(data, limits))


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Frames:
    """All frames at once, at most limits.max_pixels * 3 bytes of them. Raises GifError."""
    images, durations = zip(*frames(data, limits), strict=True)
    return Frames(np.stack(images), np.array(durations, dtype=np.int64))


def durations_ms(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[int]:
    """The duration of every frame, from the file's blocks: nothing is decoded. Raises GifError."""
    return [image.duration_ms for image in walk(data, limits).images]


def _composite(structure: Structure) -> Iterator[tuple[np.ndarray, int]]:
    decoder = VideoCodecContext.create("gif", "r")
    decoder.thread_count = 1
    canvas = np.full((structure.height, structure.width), _WHITE, dtype=_PIXEL)
    for image in structure.images:
        pixels, key = _decode_image(decoder, image)
        box = np.s_[image.top : image.top + image.height, image.left : image.left + image.width]
        region = canvas[box]  # a view, clipped to the canvas
        before = region.copy() if image.disposal == _RESTORE else region
        pixels = pixels[: region.shape[0], : region.shape[1]]
        np.copyto(region, pixels, where=True if key is None else pixels != key)
        bytes_of = canvas.view(np.uint8).reshape(*canvas.shape, 4)
        yield np.ascontiguousarray(bytes_of[..., 2::-1]), image.duration_ms
        if image.disposal == _CLEAR:
            region[...] = _WHITE
        elif image.disposal == _RESTORE:
            region[...] = before


def _decode_image(decoder: VideoCodecContext, image: ImageBlock) -> tuple[np.ndarray, int | None]:
    """Pixels (height, width) of one image, and the value that marks its transparent ones."""
    palette, key = _marked_palette(image.palette, image.transparent)
    size = (image.width, image.height)
    flags = 0x87 | image.interlaced << 6  # a local palette of 256 colours
    packet = b"".join(
        (
            b"GIF89a",
            struct.pack("<HH3x", *size),
            struct.pack("<BHHHHB", 0x2C, 0, 0, *size, flags),
            palette,
            image.data,
        )
    )
    try:
        (frame,) = decoder.decode(av.Packet(packet))
        pixels = _pixels(frame)
    except Exception as error:  # PyAV raises many kinds, some of them not its own
        raise GifError("corrupt", f"an image does not decode ({type(error).__name__})") from error
    # FFmpeg leaves pixels that the LZW data never reached fully transparent.
    if pixels.shape != size[::-1] or pixels.min() < _OPAQUE_BLACK:
        raise GifError("corrupt", "the data of an image end before its last pixel")
    return pixels, key


def _pixels(frame: VideoFrame) -> np.ndarray:
    packed = np.ascontiguousarray(frame.to_ndarray(format="bgra"))  # (H, W, 4)
    return packed.view(_PIXEL)[..., 0]


@lru_cache(maxsize=8)
def _marked_palette(palette: bytes, transparent: int | None) -> tuple[bytes, int | None]:
    """256 colours, black where the file gives none, and the pixel value meaning "transparent".

    That index gets a colour which the palette does not use, so that transparent pixels can be told
    from opaque ones, and both from pixels that were never decoded.
    """
    padded = palette.ljust(768, b"\0")
    if transparent is None:
        return padded, None
    used = {padded[i : i + 3] for i in range(0, 768, 3)}
    unused = next(c for c in (i.to_bytes(3, "big") for i in range(257)) if c not in used)
    marked = padded[: 3 * transparent] + unused + padded[3 * transparent + 3 :]
    return marked, _OPAQUE_BLACK | int.from_bytes(unused, "big")
