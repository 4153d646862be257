"""GIF bytes to frames, composited on white; walk and the way back, encode, are re-exported here.

FFmpeg (through PyAV) decodes the LZW data of one image at a time, handed to it as a GIF of its
own with the format fixed, so nothing is probed and no frame can be dropped. The structure comes
from gif_blocks: canvas, rectangles, delays, disposal, and the number of images, which is the
number of frames. Compositing is done here, by the rules of browsers, of which gif_blocks has the
table.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from ddpm_lightning.data.animation import Animation
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
    "canvases",
    "decode",
    "encode",
    "frames",
    "read_gif",
    "walk",
]

_PIXEL = np.dtype("<u4")  # red, green, blue, alpha in memory
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
    shown = canvases(walk(data, limits))
    return ((canvas[..., :3].copy(), duration_ms) for canvas, duration_ms in shown)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Frames:
    """All frames at once, at most limits.max_pixels * 3 bytes of them. Raises GifError."""
    images, durations = zip(*frames(data, limits), strict=True)
    return Frames(np.stack(images), np.array(durations, dtype=np.int64))


def read_gif(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Animation:
    """Return what a GIF shows, by its block structure. Raises GifError."""
    structure = walk(data, limits)
    return Animation(
        structure.width,
        structure.height,
        len(structure.images),
        sum(image.duration_ms for image in structure.images) / 1000,
        canvases(structure),
        structure.note,
    )


def canvases(structure: Structure) -> Iterator[tuple[np.ndarray, int]]:
    """Like frames, but yields (canvas (H, W, 4) uint8, duration_ms) and copies nothing.

    The fourth channel is always 255, and the next frame is painted into the same array. Images
    that are not asked for are not decoded.
    """
    decoder = VideoCodecContext.create("gif", "r")
    decoder.thread_count = 1
    canvas = np.full((structure.height, structure.width), _WHITE, dtype=_PIXEL)
    shown = canvas.view(np.uint8).reshape(*canvas.shape, 4)
    for image in structure.images:
        box = np.s_[image.top : image.top + image.height, image.left : image.left + image.width]
        region = canvas[box]  # a view, clipped to the canvas
        before = region.copy() if image.disposal == _RESTORE else region
        if not image.is_empty:
            _paint(region, *_decode_image(decoder, image))
        yield shown, image.duration_ms
        if image.disposal == _CLEAR:
            region[...] = _WHITE
        elif image.disposal == _RESTORE:
            region[...] = before


def _paint(region: np.ndarray, pixels: np.ndarray, key: int | None) -> None:
    pixels = pixels[: region.shape[0], : region.shape[1]]
    if key is None:
        region[...] = pixels
    else:  # without a branch: under a dithered mask, a branch a pixel takes 8 times as long
        change = pixels - region  # modulo 2^32
        change *= pixels != key
        region += change


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
        (plane,) = frame.planes
    except MemoryError:
        raise
    except Exception as error:  # PyAV raises many kinds, some of them not its own
        raise GifError("corrupt", f"an image does not decode ({type(error).__name__})") from error
    buffer = memoryview(plane)
    rows = np.frombuffer(buffer, _PIXEL).reshape(-1, plane.line_size // _PIXEL.itemsize)
    pixels = rows[: image.height, : image.width]
    # FFmpeg leaves pixels that the LZW data never reached fully transparent.
    if (frame.width, frame.height) != size or pixels.min() < _OPAQUE_BLACK:
        raise GifError("corrupt", "the data of an image end before its last pixel")
    return pixels, key


@lru_cache(maxsize=8)
def _marked_palette(palette: bytes, transparent: int | None) -> tuple[bytes, int | None]:
    """256 colours, black where the file gives none, and the pixel value meaning "transparent".

    Red and blue change places, so that what FFmpeg calls BGRA is RGBA in memory. The transparent
    index gets a colour which the palette does not use, so that transparent pixels can be told
    from opaque ones, and both from pixels that were never decoded.
    """
    swapped = bytearray(palette.ljust(768, b"\0"))
    swapped[0::3], swapped[2::3] = swapped[2::3], swapped[0::3]
    if transparent is None:
        return bytes(swapped), None
    # 768 bytes have 766 substrings of 3, so one of 767 is missing.
    unused = next(c for c in (i.to_bytes(3, "big") for i in range(767)) if c not in swapped)
    swapped[3 * transparent : 3 * transparent + 3] = unused
    return bytes(swapped), _OPAQUE_BLACK | int.from_bytes(unused, "big")
