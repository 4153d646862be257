"""A page about a clip store: what is in it, what was left out and why, and how it looks.

One HTML file with everything inside, to be opened without a server or a network.
"""

import base64
import html
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from statistics import median

import numpy as np

from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.shards import Entry
from ddpm_lightning.data.store import ClipStore, DamagedClip
from ddpm_lightning.plots.films import frame_ms

BINS = 24
MAX_SHOWN_SECONDS = 6.0  # of a sample on the contact sheet
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; color: #222; }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0 }
td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0; width: 240px } figcaption { font-size: .85rem; color: #555 }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem }
.sheet img { width: 100%; image-rendering: pixelated; background: #eee }
.sheet p { margin: .2rem 0 0; font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere }
"""


def data_page(store: ClipStore, title: str, num_samples: int, seed: int) -> str:
    """Return HTML of the whole store, with a contact sheet of num_samples clips drawn by the seed.

    Damaged clips are passed over, and named. Raises ValueError for a store without clips.
    """
    entries = store.entries
    if not entries:
        raise ValueError(f"{title} holds no clip: {store.summary()}")
    shown = _drawn(store, num_samples, seed)
    clips = [clip for _, clip in shown]
    charts = [
        _histogram("duration, seconds", [e.seconds for e in entries]),
        _histogram("frames of a clip", [e.num_frames for e in entries]),
        _histogram("shots of a clip", [len(e.shots) for e in entries]),
        _histogram("motion of the samples, levels a frame", [motion(clip) for clip in clips]),
        _histogram("captions of a clip", [len(e.captions) for e in entries]),
    ]
    if any(e.width for e in entries):  # stores of older versions do not know it
        charts += [
            _histogram("width of the GIFs, pixels", [e.width for e in entries]),
            _histogram("height of the GIFs, pixels", [e.height for e in entries]),
            _histogram("frames a second of the GIFs", [e.gif_fps for e in entries]),
        ]
    height, width, channels = store.shape
    facts = [
        f"{len(entries):,} clips of {width}x{height} pixels, {channels} channels, at "
        f"{store.fps:g} frames a second",
        f"{sum(e.seconds for e in entries) / 3600:,.2f} hours",
        f"{store.skipped.total():,} GIFs were left out",
    ]
    facts += [f"damaged: {shard}, {cause}" for shard, cause in store.damage.items()]
    sheet = [_sample(clip, store.fps, entry.key, entry.captions) for entry, clip in shown]
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(fact)}</p>" for fact in facts),
        "<h2>What became of the GIFs</h2>",
        _table(Counter({"clips": len(entries)}) + store.skipped),
        "<h2>The clips</h2><div class='charts'>",
        *charts,
        f"</div><h2>{len(clips)} of them</h2><div class='sheet'>",
        *sheet,
        "</div></html>",
    ]
    return "\n".join(parts)


def _drawn(store: ClipStore, num_samples: int, seed: int) -> list[tuple[Entry, np.ndarray]]:
    """Return clips drawn without repetition, as many of num_samples as are intact."""
    drawn: list[tuple[Entry, np.ndarray]] = []
    for i in np.random.default_rng(seed).permutation(len(store)).tolist():
        if len(drawn) == num_samples:
            break
        with suppress(DamagedClip):
            drawn.append((store.entries[i], np.array(store.clip(i))))
    if not drawn:
        raise ValueError(f"no clip is sound: {store.summary()}")
    return drawn


def motion(clip: np.ndarray) -> float:
    """Return the mean absolute change from frame to frame, in levels of 0 to 255."""
    if len(clip) < 2:
        return 0.0
    return float(np.abs(np.diff(clip.astype(np.int16), axis=0)).mean())


def _table(counts: Counter[str]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count:,}</td></tr>"
        for name, count in counts.most_common()
    )
    return f"<table>{rows}</table>"


def _histogram(title: str, values: Sequence[float]) -> str:
    """Return an SVG of the values up to their 99th percentile, or a line where all are the same."""
    array = np.asarray(values, dtype=np.float64)
    low, high = array.min(), np.quantile(array, 0.99)
    if low == high:
        return f"<figure><figcaption>{html.escape(title)}: {low:.3g}</figcaption></figure>"
    counts, _ = np.histogram(array.clip(low, high), BINS, (low, high))
    tallest = counts.max()
    bars = "".join(
        f"<rect x='{10 * i}' y='{80 - 80 * n / tallest:.1f}' width='9' "
        f"height='{80 * n / tallest:.1f}' fill='#4477aa'/>"
        for i, n in enumerate(counts.tolist())
    )
    caption = f"{title}: {low:.3g} to {high:.3g}, median {median(array.tolist()):.3g}"
    return (
        f"<figure><svg width='{10 * BINS}' height='80' role='img'>{bars}</svg>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _sample(clip: np.ndarray, fps: float, key: str, captions: Sequence[str]) -> str:
    shown = clip[: max(1, round(MAX_SHOWN_SECONDS * fps))]
    frames = np.broadcast_to(shown, (*shown.shape[:-1], 3))
    data = base64.b64encode(encode(np.ascontiguousarray(frames), [frame_ms(fps)] * len(shown)))
    words = " / ".join(captions[:2])
    return (
        f"<div><img src='data:image/gif;base64,{data.decode()}' alt='{html.escape(key, True)}'>"
        f"<p><b>{html.escape(key)}</b> {html.escape(words)}</p></div>"
    )
