"""Loss curves from a run's metrics.csv."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpm_lightning.files.bounded import read_small

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "loss, on what is trained": ("train/loss", "val/loss"),
    "val/error, at fixed levels": ("val/error",),
    "clips/s": ("train/clips_per_s",),
    "gradient norm": ("train/grad_norm",),
}
BY_LEVEL = "val_error_at/"  # prefix of a level's log-SNR
_MAX_BYTES = 2**30
SMOOTHING = 0.9  # of the training loss, beside its raw values


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv without empty cells; none where there is no file.

    One that was being written when the process was killed has no step, or no end: it is left out.
    """
    if not path.is_file():
        return []
    lines = read_small(path, _MAX_BYTES).decode().splitlines()
    rows = [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(lines)]
    return [row for row in rows if row.get("step", "").isdigit() and None not in row]


def read_metrics(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """metric -> (steps, values) of a metrics.csv; empty cells are left out."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_rows(path):
        step = float(row.pop("step"))
        for name, value in row.items():
            steps, values = series.setdefault(name, ([], []))
            steps.append(step)
            values.append(float(value))
    return series


def save_curves(metrics: Path, path: Path) -> Path:
    """Draws losses, the error at fixed levels, the loss by log-SNR bin, speed, gradient norm."""
    from matplotlib.figure import Figure

    series = read_metrics(metrics)
    figure = Figure(figsize=(14, 7))
    figure.subplots_adjust(0.05, 0.07, 0.98, 0.94, 0.2, 0.3)  # to measure texts takes as long again
    axes = list(figure.subplots(2, 3).flat)
    for (title, names), axis in zip(PANELS.items(), axes, strict=False):
        for name in names:
            if name not in series:
                continue
            steps, values = series[name]
            if name == "train/loss":
                axis.plot(steps, values, alpha=0.3, linewidth=0.8, color="C0")
                axis.plot(steps, smooth(values), label=name, color="C0")
            else:
                axis.plot(steps, values, label=name, color="C1", marker=".", markersize=3)
        scale = "linear" if title == "clips/s" else scale_of(axis)
        axis.set(title=title, xlabel="step", yscale=scale)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend()
    bins = {name: xy for name, xy in series.items() if name.startswith("val_by_log_snr/")}
    for name, (steps, values) in bins.items():
        axes[4].plot(steps, values, label=name.split("/")[1].replace("_", " "), marker=".")
    axes[4].set(title="val/loss by log-SNR", xlabel="step", yscale=scale_of(axes[4]))
    _draw_levels(axes[5], series)
    for axis in axes[4:]:
        if axis.lines:
            axis.legend(fontsize="small")
    for axis in axes:
        label_plainly(axis)
    mark_empty(axes)
    figure.savefig(path, dpi=100)
    return path


def _draw_levels(axis: "Axes", series: dict[str, tuple[list[float], list[float]]]) -> None:
    """Draws the error against log-SNR: at the first, a middle and the last validation."""
    levels = sorted(float(n.removeprefix(BY_LEVEL)) for n in series if n.startswith(BY_LEVEL))
    at_level = [dict(zip(*series[f"{BY_LEVEL}{level:+06.2f}"], strict=True)) for level in levels]
    steps = sorted(at_level[0]) if at_level else []
    for step in dict.fromkeys(steps[i] for i in (0, len(steps) // 2, -1) if steps):
        errors = [errors.get(step, float("nan")) for errors in at_level]
        axis.plot(levels, errors, label=f"step {step:,.0f}", marker=".")
    axis.set(title="val/error by level", xlabel="log-SNR", yscale="log")


def scale_of(axis: "Axes") -> str:
    """Return log where all values that an axis shows are positive, else linear."""
    values = np.concatenate([np.asarray(line.get_ydata()) for line in axis.lines] or [np.zeros(1)])
    return "log" if (values > 0).all() else "linear"


def label_plainly(axis: "Axes") -> None:
    """Write 0.023, not 2.3 x 10^-2, which runs into the next panel and takes longer to lay out."""
    from matplotlib.ticker import LogLocator

    if axis.get_yscale() != "log":
        return
    low, high = axis.get_ylim()
    if high > 10 * low:
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.yaxis.set_major_formatter("{x:.4g}")
    axis.yaxis.set_minor_formatter("{x:.4g}" if high < 1000 * low else "")


def mark_empty(axes: "Iterable[Axes]") -> None:
    """Writes so where there is nothing to see, as when a run was too short to be validated."""
    for axis in axes:
        if not axis.lines:
            axis.set(yscale="linear", xticks=[], yticks=[])
            axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", color="grey")


def smooth(values: list[float]) -> list[float]:
    """Exponential moving average, without bias at the start."""
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(total / weight)
    return means
