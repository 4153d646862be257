"""Curves over network calls: what a sampler's samples are worth for what they cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_FAR = 10  # times the floor


class CallsPoint(NamedTuple):
    """A number of samples that took so many network calls, and the interval around it."""

    calls: int
    value: float
    low: float
    high: float


class CallsPanel(NamedTuple):
    """A panel: curves by sampler, and where real clips against real ones lie."""

    title: str
    curves: Mapping[str, Sequence[CallsPoint]]
    floor: tuple[float, float]


def save_calls(panels: Sequence[CallsPanel], unit: str, path: Path) -> Path:
    """Draw a panel for each number; calls on a logarithmic axis, the floor as a band.

    Where values go far beyond the floor, the vertical axis is linear within it and logarithmic
    beyond.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.5 * columns, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, panel in zip(axes, panels, strict=False):
        axis.axhspan(*panel.floor, facecolor="0.9", edgecolor="0.8", label="real against real")
        for name, points in panel.curves.items():
            calls, values = [p.calls for p in points], [p.value for p in points]
            errors = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
            axis.errorbar(calls, values, errors, label=name, marker="o", markersize=4, capsize=2)
        ticks = sorted({p.calls for points in panel.curves.values() for p in points})
        axis.set(title=panel.title, xlabel="network calls", ylabel=unit, xscale="log")
        lows = [p.low for points in panel.curves.values() for p in points]
        highest = max(p.high for points in panel.curves.values() for p in points)
        if highest > _FAR * (floor := max(map(abs, panel.floor)) or 1.0):
            axis.set_yscale("symlog", linthresh=floor)
        axis.set_ylim(bottom=1.2 * min(0.0, panel.floor[0], *lows))
        axis.set_xticks(ticks)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    return path
