"""Frames to GIF bytes: one palette for the whole clip, exact delays, endless loop.

A clip of at most 256 colours keeps every pixel. For a richer one FFmpeg's palettegen chooses the
256 colours and every pixel takes the nearest. There is no dither: it costs accuracy (on 32x32
video a mean error of 1.5 levels for Bayer and 1.3 for error diffusion against 1.1) and moves
from frame to frame in what stands still.
"""

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from ddpm_lightning.data.gif_blocks import MAX_DELAY_CS

_NUM_COLOURS = 256
_NUM_SAMPLES = 4096  # pixels from which a palette is chosen
_CHUNK = 256  # colours mapped at a time: so small a product runs on one thread, at a steady speed
_CENTISECOND = Fraction(1, 100)
_MIN_DELAY_CS = 2


def encode(frames: np.ndarray, durations_ms: Sequence[int] | np.ndarray) -> bytes:
    """An animated GIF that loops forever.

    Args:
        frames: (F, H, W, 3) uint8, F >= 1.
        durations_ms: (F,), rounded to centiseconds, 20 to 655350 ms after that: browsers show a
            shorter one for 100 ms, and a GIF cannot say a longer one.
    """
    assert frames.dtype == np.uint8, frames.dtype
    assert frames.ndim == 4, frames.shape
    delays_cs = np.rint(np.asarray(durations_ms) / 10).astype(np.int64)
    assert _MIN_DELAY_CS <= delays_cs.min() <= delays_cs.max() <= MAX_DELAY_CS, durations_ms
    pixels = frames.reshape(-1, 3)
    red, green, blue = pixels.T.astype(np.uint32)
    packed, which = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    colours = (packed[:, None] >> np.array([16, 8, 0], dtype=np.uint32)).astype(np.uint8)  # (U, 3)
    palette = _palette_of(colours, pixels)
    indices = _nearest(colours, palette)[which].reshape(frames.shape[:3])
    return _write(indices, palette, delays_cs)


def _palette_of(colours: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(P, 3) uint8, P <= 256: the colours (U, 3) themselves, or FFmpeg's choice for the pixels."""
    if len(colours) <= _NUM_COLOURS:
        return colours
    generator = np.random.default_rng(0)  # fixed: equal clips give equal bytes
    sample = pixels[generator.integers(0, len(pixels), _NUM_SAMPLES)]
    opaque = np.full((1, _NUM_SAMPLES, 4), 255, dtype=np.uint8)
    opaque[0, :, 2::-1] = sample
    frame = VideoFrame.from_ndarray(opaque, format="bgra")  # palettegen's own format
    frame.pts, frame.time_base = 0, _CENTISECOND
    graph = Graph()
    graph.threads = 1
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=1, format=frame.format, time_base=_CENTISECOND),
        graph.add("palettegen", "stats_mode=full:reserve_transparent=0"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    graph.vpush(None)
    chosen = graph.vpull().to_ndarray(format="bgra")
    return chosen.reshape(_NUM_COLOURS, 4)[:, 2::-1]


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """(U,) uint8: for each colour the index of the palette entry at the least squared distance.

    |c - p|^2 = |c|^2 - (2 c p - |p|^2), so the entry with the largest bracket is the nearest; the
    bracket is a product of (c, 1) and (2 p, -|p|^2), and an integer that float32 holds exactly.
    """
    entries = palette.astype(np.float32)
    entries = np.hstack((2 * entries, -(entries**2).sum(axis=1, keepdims=True))).T  # (4, P)
    points = np.hstack((colours, np.ones_like(colours[:, :1]))).astype(np.float32)  # (U, 4)
    chunks = [
        np.argmax(points[start : start + _CHUNK] @ entries, axis=1)
        for start in range(0, len(points), _CHUNK)
    ]
    return np.concatenate(chunks).astype(np.uint8)


def _write(indices: np.ndarray, palette: np.ndarray, delays_cs: np.ndarray) -> bytes:
    opaque = np.full((_NUM_COLOURS, 4), 255, dtype=np.uint8)  # alpha, red, green, blue
    opaque[: len(palette), 1:] = palette
    file = BytesIO()
    # The muxer takes a delay from the next frame's time, and the last one from final_delay.
    options = {"loop": "0", "final_delay": str(delays_cs[-1])}
    with av.open(file, "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=100)
        stream.height, stream.width = indices.shape[1:]
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = _CENTISECOND
        starts = np.cumsum(delays_cs) - delays_cs
        for image, start in zip(indices, starts.tolist(), strict=True):
            frame = VideoFrame.from_ndarray((image, opaque), format="pal8")  # type: ignore[arg-type]
            frame.pts, frame.time_base = start, _CENTISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
