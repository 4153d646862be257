"""Errors of arms over steps and by level, beside one of them, with every seed."""

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ddpm_lightning.evaluation.paired import paired

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ErrorCurve(NamedTuple):
    """An arm under a loss: val/error at steps and, at the last of them, by level, of each seed."""

    loss: str
    arm: str
    steps: Sequence[int]
    errors: Mapping[int, Sequence[float]]
    by_level: Mapping[int, Mapping[float, float]]


def save_errors(curves: Sequence[ErrorCurve], base: str, path: Path) -> Path:
    """Draw a row for each loss: errors over steps, their ratio to the base arm's, and by level.

    Ratios are means over seeds that both arms have, with Student's 95 % interval.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(curve.loss for curve in curves))
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    figure = Figure(figsize=(15, 4.4 * len(losses)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(losses), 3, squeeze=False)
    for loss, (over_steps, ratio, by_level) in zip(losses, rows, strict=True):
        own = {curve.arm: curve for curve in curves if curve.loss == loss}
        for arm, curve in own.items():
            colour = f"C{arms.index(arm)}"
            mean = np.exp(np.log(list(curve.errors.values())).mean(0))
            over_steps.plot(curve.steps, mean, "o-", color=colour, label=arm, markersize=3)
            if arm != base and base in own:
                _draw_ratios(ratio, by_level, curve, own[base], colour)
        over_steps.set(title=f"val/error, loss={loss}", xlabel="step", yscale="log")
        over_steps.legend(fontsize="small")
        ratio.set(title=f"val/error to that of {base}", xlabel="step")
        by_level.set(title=f"by level, to that of {base}, at the end", xlabel="log-SNR")
        for axis in (ratio, by_level):
            axis.axhline(1, color="0.6", linewidth=0.8)
    figure.savefig(path, dpi=110)
    return path


def _draw_ratios(
    over_steps: "Axes", by_level: "Axes", curve: ErrorCurve, base: ErrorCurve, colour: str
) -> None:
    seeds = sorted(curve.errors.keys() & base.errors.keys())
    if len(seeds) < 2:
        return
    at_steps = [
        paired([log(curve.errors[s][i] / base.errors[s][i]) for s in seeds])
        for i in range(len(curve.steps))
    ]
    middle = np.exp([seen.mean for seen in at_steps])
    ends = np.abs(
        np.exp([[seen.low for seen in at_steps], [seen.high for seen in at_steps]]) - middle
    )
    over_steps.errorbar(
        curve.steps, middle, ends, color=colour, marker="o", markersize=3, capsize=2
    )
    common = set.intersection(*(set(c.by_level[s]) for c in (curve, base) for s in seeds))
    levels = sorted(common)
    ratios = [
        np.exp(np.mean([log(curve.by_level[s][at] / base.by_level[s][at]) for s in seeds]))
        for at in levels
    ]
    by_level.plot(levels, ratios, color=colour)


def save_paths(paths: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> Path:
    """Draw a row for each path and a column for each number of calls: eight clips, a frame of each.

    Args:
        paths: name -> calls -> clips uint8 (N, F, H, W, C), of equal noise.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = sorted({count for by_count in paths.values() for count in by_count})
    size = (3.2 * len(counts), 1.7 * len(paths))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(paths), len(counts), squeeze=False)
    for row, (name, by_count) in zip(axes, paths.items(), strict=True):
        row[0].set_ylabel(name.replace("-", "\n"), rotation=0, ha="right", va="center")
        for axis, count in zip(row, counts, strict=True):
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
            if count in by_count:
                axis.imshow(_tiles(by_count[count][:8]), cmap="gray", vmin=0, vmax=255)
    for axis, count in zip(axes[0], counts, strict=True):
        axis.set_title(f"{count} calls", fontsize="medium")
    figure.savefig(path, dpi=110)
    return path


def _tiles(clips: np.ndarray) -> np.ndarray:
    """Return the middle frames of clips (8, F, H, W, C) as two rows of four, (2 H, 4 W, C)."""
    frames = np.pad(clips[:, clips.shape[1] // 2], ((0, 0), (0, 1), (0, 1), (0, 0)))
    rows = [np.concatenate(list(part), axis=1) for part in (frames[:4], frames[4:8])]
    return np.concatenate(rows, axis=0)
