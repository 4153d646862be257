"""The block structure of a GIF file: what it claims to hold, read before any pixel is decoded.

Defines GifError (every reason for refusing a GIF), Limits (how much work one file may ask for),
ImageBlock (one image with its place, palette, delay and disposal) and walk, which lists them; LZW
and FFmpeg are not known here. What GIF89a leaves open, or files break, is read as browsers do:

screen            transparent, which means white, whatever the background colour
first frame       a screen that is smaller, or 0, becomes that frame's size, the frame its whole
later frames      are cut at the edges of the screen
zero sizes        an image of no width or height is as large as the screen
disposal 0, 1     the image stays; so it does for 5, 6 and 7, which mean nothing
disposal 2        its rectangle becomes transparent
disposal 3        what was there comes back; 4 is read as 3
delays            0 and 10 ms mean 100 ms
missing trailer   the file ends with its last whole block; a note, `no_trailer`, is counted
cut in a block    refused as truncated
extra bytes       after the trailer nothing is read; an unknown block after an image ends the file
                  (note `extra_bytes`), before one it is corrupt; zeros between blocks are skipped
interlace         rows are put in their order
empty images      an image without data shows what was there for its time; one whose data end
                  early is corrupt: browsers show its part, but no clip should be made of it
transparency      the index of an image's control block alone; it may lie beyond the palette
local palettes    hold for their image alone; an image without any palette is corrupt
"""

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

Cause = Literal[
    "unreadable",  # the bytes could not be fetched
    "not_a_gif",  # the signature is neither GIF87a nor GIF89a
    "no_frames",  # a whole file without a single image
    "truncated",  # the bytes end inside a block, or before the first image
    "corrupt",  # the blocks contradict the format, or an image does not decode completely
    "too_large",  # beyond Limits
    "too_short",  # lasts less than wanted
    "too_long",  # lasts longer than wanted, or than one clip may hold
    "still",  # shows one picture only, at the size and frame rate of the clips
    "duplicate",  # the same bytes as a GIF already taken
]

_TRAILER, _EXTENSION, _IMAGE, _PADDING = 0x3B, 0x21, 0x2C, 0x00
_GRAPHIC_CONTROL = 0xF9
_SCREEN, _CONTROL = struct.Struct("<HHBxx"), struct.Struct("<BHB")
_DESCRIPTOR = struct.Struct("<HHHHB")
_SHORTEST_HONOURED_MS, _DEFAULT_MS = 10, 100
MAX_DELAY_CS = 65535
_DISPOSALS = (0, 0, 2, 3, 3, 0, 0, 0)  # as stored -> as read
_Control = tuple[int, int, int | None]  # disposal, delay_cs, transparent of an ImageBlock
_NO_CONTROL: _Control = (0, 0, None)


class GifError(ValueError):
    """A GIF that cannot be used; cause is one of the codes in Cause, str() is one line."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(cause, message)
        self.cause = cause
        self.message = message

    def __str__(self) -> str:
        return f"{self.cause}: {self.message}"


@dataclass(frozen=True)
class Limits:
    """What one file may cost. Checked against its block structure, before decoding.

    max_pixels bounds the sum over images of max(canvas area, image area): a few kilobytes can
    otherwise ask for minutes of compositing or for gigabytes of memory. max_side holds for the
    canvas and for every image. What the clip may be is checked afterwards: its bytes, and how many
    pictures, each unlike the one before, it must show.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 100_000_000
    max_frames: int = 10_000
    max_side: int = 65_535
    max_clip_bytes: int = 2**40
    min_pictures: int = 1


DEFAULT_LIMITS = Limits()


class ImageBlock(NamedTuple):
    """One image: its rectangle on the canvas, how to colour it, how long to show it."""

    left: int
    top: int
    width: int
    height: int
    interlaced: bool
    disposal: int  # 2: clear the rectangle afterwards, 3: put back what was there, 0: keep
    delay_cs: int  # as stored
    transparent: int | None  # palette index
    palette: bytes  # RGB triples, 2 to 256 of them
    data: bytes  # minimum code size, then the LZW sub-blocks with their terminator

    @property
    def duration_ms(self) -> int:
        """Time on screen. As in browsers, a delay of 0 or 10 ms means 100 ms."""
        stored = 10 * self.delay_cs
        return stored if stored > _SHORTEST_HONOURED_MS else _DEFAULT_MS

    @property
    def is_empty(self) -> bool:
        """Whether there is no data, not one sub-block of them."""
        return len(self.data) == 2


@dataclass(frozen=True)
class Structure:
    """The canvas in pixels and the images in order, at least one."""

    width: int
    height: int
    images: tuple[ImageBlock, ...]
    note: str = ""  # what is odd about the end: no_trailer, extra_bytes


@dataclass
class _Reader:
    """A cursor that refuses to run past the end."""

    data: bytes
    position: int

    def take(self, count: int) -> bytes:
        start = self.position
        self.skip(count)
        return self.data[start : self.position]

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.data):
            raise GifError(
                "truncated", f"{len(self.data)} bytes, which end inside a block; fetch it again"
            )

    def byte(self) -> int:
        self.skip(1)
        return self.data[self.position - 1]

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        self.skip(form.size)
        return form.unpack_from(self.data, self.position - form.size)

    def skip_sub_blocks(self) -> None:
        data, position = self.data, self.position
        try:
            while size := data[position]:
                position += 1 + size
        except IndexError:
            position = len(data)
        self.position = position
        self.skip(1)  # the terminator, if the data did not end before it

    def palette(self, flags: int) -> bytes:
        """The colour table that a descriptor's flags announce; empty without one."""
        return self.take(3 << ((flags & 7) + 1)) if flags & 0x80 else b""


def walk(data: bytes, limits: Limits) -> Structure:
    """List the images of a whole GIF file, by the rules above.

    Raises GifError: not_a_gif, truncated, corrupt, no_frames, or too_large by limits.
    """
    if len(data) > limits.max_bytes:
        raise GifError("too_large", f"{len(data)} bytes, at most {limits.max_bytes} are read")
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise GifError("not_a_gif", f"starts with {data[:6]!r}, not with GIF87a or GIF89a")
    reader = _Reader(data, 6)
    width, height, flags = reader.unpack(_SCREEN)
    _check_work(0, 0, max(width, height), limits)
    shared_palette = reader.palette(flags)
    images: list[ImageBlock] = []
    pixels, note, control = 0, "", _NO_CONTROL
    while not images or reader.position < len(data):
        kind = reader.byte()
        if kind == _EXTENSION:
            control = _graphic_control(reader) or control
        elif kind == _IMAGE:
            image = _image(reader, (width, height), shared_palette, control)
            control = _NO_CONTROL
            if not images and (image.width > width or image.height > height):
                width, height = image.width, image.height
                image = image._replace(left=0, top=0)
            images.append(image)
            pixels += max(width * height, image.width * image.height)
            side = max(width, height, image.width, image.height)
            _check_work(len(images), pixels, side, limits)
        elif kind == _TRAILER:
            break
        elif kind != _PADDING and images:
            note = "extra_bytes"
            break
        elif kind != _PADDING:
            where = reader.position - 1
            raise GifError("corrupt", f"unknown block 0x{kind:02x} at byte {where}")
    else:
        note = "no_trailer"
    if all(image.is_empty for image in images):
        raise GifError("no_frames", f"{len(images)} images, none of them with data")
    return Structure(width, height, tuple(images), note)


def _check_work(num_images: int, pixels: int, side: int, limits: Limits) -> None:
    most = limits.max_frames, limits.max_pixels, limits.max_side
    if num_images > most[0] or pixels > most[1] or side > most[2]:
        raise GifError(
            "too_large",
            f"{num_images} or more frames, {pixels} pixels in all, {side} a side; at most "
            f"{most[0]}, {most[1]} and {most[2]} are decoded",
        )


def _graphic_control(reader: _Reader) -> _Control | None:
    """What a graphic control extension says of the next image; None of other extensions."""
    if reader.byte() != _GRAPHIC_CONTROL:
        reader.skip_sub_blocks()
        return None
    size = reader.byte()
    if size < 4:
        raise GifError("corrupt", f"a graphic control block of {size} bytes instead of 4")
    flags, delay_cs, transparent = reader.unpack(_CONTROL)
    reader.skip(size - 4)
    reader.skip_sub_blocks()
    return _DISPOSALS[(flags >> 2) & 7], delay_cs, transparent if flags & 1 else None


def _image(
    reader: _Reader, screen: tuple[int, int], shared_palette: bytes, control: _Control
) -> ImageBlock:
    left, top, width, height, flags = reader.unpack(_DESCRIPTOR)
    if not width or not height:
        width, height = screen
    if not width or not height:
        raise GifError("corrupt", "an image without a size on a screen without one")
    palette = reader.palette(flags) or shared_palette
    if not palette:
        raise GifError("corrupt", "an image without any colour table")
    start = reader.position
    reader.skip(1)
    reader.skip_sub_blocks()
    data = reader.data[start : reader.position]
    return ImageBlock(left, top, width, height, bool(flags & 0x40), *control, palette, data)
