"""Real and hostile GIFs that lie beside a developer's checkout, and tiny GIFs made by hand."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from ddpm_lightning.data.gif import decode, encode

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_gifs(folder: str) -> list[Path]:
    """The .gif files of a folder of ../shared; the test skips where there is none."""
    paths = sorted((SHARED / folder).glob("*.gif"))
    if not paths:
        pytest.skip(f"needs the GIFs of ../shared/{folder}, which are not here")
    return paths


def noise_clip(
    seed: int, num_frames: int = 5, height: int = 6, width: int = 7, num_colours: int = 40
) -> np.ndarray:
    """(F, H, W, 3) uint8 in at most num_colours random colours."""
    generator = np.random.default_rng(seed)
    palette = generator.integers(0, 256, (num_colours, 3), dtype=np.uint8)
    return palette[generator.integers(0, num_colours, (num_frames, height, width))]


def noise_gif(seed: int, num_frames: int = 5, duration_ms: int = 100) -> bytes:
    return encode(noise_clip(seed, num_frames), [duration_ms] * num_frames)


def video_bytes(
    frames: np.ndarray, durations_ms: Sequence[int], codec: str = "png", form: str = "mov"
) -> bytes:
    """A video of frames (F, H, W, 3) uint8 at whole 1/50 seconds, by default without loss."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        track = cast(av.VideoStream, container.add_stream(codec, rate=50, options={"bf": "2"}))
        track.height, track.width = frames.shape[1:3]
        track.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        starts = accumulate(durations_ms, initial=0)
        for pixels, start, duration_ms in zip(frames, starts, durations_ms, strict=False):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.duration, frame.time_base = (
                start // 20,
                duration_ms // 20,
                Fraction(1, 50),
            )
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return file.getvalue()


def write_videos(folder: Path) -> None:
    """The GIFs of a folder as videos beside them."""
    for path in folder.glob("*.gif"):
        shown = decode(path.read_bytes())
        path.with_suffix(".mov").write_bytes(video_bytes(shown.frames, shown.durations_ms.tolist()))


def gif_bytes(
    canvas: tuple[int, int],
    images: Sequence[dict[str, Any]],
    *,
    header: bytes = b"GIF89a",
    palette: bytes | None = None,
    end: bytes = b"\x3b",
    background: int = 0,
) -> bytes:
    """A GIF from parts: images are dicts of indices (h, w) and left, top, disposal, transparent,
    delay_cs; size, palette, interlaced and data where they are not those of the indices. The LZW
    data clear the table before every pixel, so they need no compressor."""
    palette = bytes(range(0, 240, 20)) if palette is None else palette  # 4 colours
    out = [header, struct.pack("<HHBBB", *canvas, 0x81 if palette else 0, background, 0), palette]
    for image in images:
        indices = np.asarray(image["indices"])
        transparent = image.get("transparent")
        flags = image.get("disposal", 0) << 2 | (transparent is not None)
        if header == b"GIF89a":
            delay_cs = image.get("delay_cs", 10)
            control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, delay_cs, transparent or 0, 0)
            out.append(control)
        size = image.get("size", indices.shape[::-1])
        place = (image.get("left", 0), image.get("top", 0), *size)
        own = image.get("palette", b"")  # of 4 colours
        flags = (0x81 if own else 0) | image.get("interlaced", 0) << 6
        pixels = _lzw(indices.astype(int).ravel().tolist())
        out += [struct.pack("<BHHHHB", 0x2C, *place, flags), own, image.get("data", pixels)]
    return b"".join(out) + end


def _lzw(pixels: list[int]) -> bytes:
    clear, stop = 4, 5
    codes = [code for pixel in pixels for code in (clear, pixel)] + [stop]  # 3 bits each
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"
