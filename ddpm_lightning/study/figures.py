"""Pictures of a study: errors of arms over steps and by level, and samples of walks with one seed,
paths side by side at equal calls, and 4 x 4 GIFs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm_lightning.evaluation.paired import paired
from ddpm_lightning.plots.films import save_grid
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.directory.checkpoint import read_config
from ddpm_lightning.study.plan import BASE, FROZEN, Cell
from ddpm_lightning.study.sampling import StudyWalk, own_path, path_of, walks
from ddpm_lightning.study.table import Training
from ddpm_lightning.study.training import run_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BySeed = dict[int, Training]


def save_errors(trainings: Sequence[Training], base: str, path: Path) -> Path:
    """Draw a row for each loss: errors over steps, their ratio to the base arm's, and by level.

    Ratios are means over seeds that both arms have, with Student's 95 % interval.
    """
    from matplotlib.figure import Figure

    by_loss: dict[str, dict[str, BySeed]] = {}
    for row in trainings:
        by_loss.setdefault(row.loss, {}).setdefault(row.arm, {})[row.seed] = row
    arms = list(dict.fromkeys(row.arm for row in trainings))
    figure = Figure(figsize=(15, 4.4 * len(by_loss)), layout="constrained")
    axes = figure.subplots(len(by_loss), 3, squeeze=False)
    for (loss, runs), (over_steps, ratio, by_level) in zip(by_loss.items(), axes, strict=True):
        for arm, own in runs.items():
            colour, rows = f"C{arms.index(arm)}", list(own.values())
            mean = np.exp(np.log([row.error for row in rows]).mean(0))
            over_steps.plot(rows[0].steps, mean, "o-", color=colour, label=arm, markersize=3)
            if arm != base and base in runs:
                _draw_ratios(ratio, by_level, own, runs[base], colour)
        over_steps.set(title=f"val/error, loss={loss}", xlabel="step", yscale="log")
        over_steps.legend(fontsize="small")
        ratio.set(title=f"val/error to that of {base}", xlabel="step")
        by_level.set(title=f"by level, to that of {base}, at the end", xlabel="log-SNR")
        for axis in (ratio, by_level):
            axis.axhline(1, color="0.6", linewidth=0.8)
    figure.savefig(path, dpi=110)
    return path


def _draw_ratios(
    over_steps: "Axes", by_level: "Axes", own: BySeed, base: BySeed, colour: str
) -> None:
    pairs = [(own[seed], base[seed]) for seed in sorted(own.keys() & base.keys())]
    if len(pairs) < 2:
        return
    ratios = np.log([np.divide(one.error, other.error) for one, other in pairs])
    means, lows, highs = np.exp([paired(column.tolist())[:3] for column in ratios.T]).T
    ends = np.abs([lows - means, highs - means])
    steps = pairs[0][0].steps
    over_steps.errorbar(steps, means, ends, color=colour, marker="o", markersize=3, capsize=2)
    levels = sorted(
        set.intersection(*(set(row.by_level) for pair in pairs for row in pair)), key=float
    )
    at_end = [[one.by_level[k][-1] / other.by_level[k][-1] for k in levels] for one, other in pairs]
    by_level.plot(list(map(float, levels)), np.exp(np.log(at_end).mean(0)), color=colour)


def save_paths(paths: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> Path:
    """Draw a row for each path and a column for each number of calls: eight clips, a frame of each.

    Args:
        paths: name -> calls -> clips uint8 (N, F, H, W, C), of equal noise.
    """
    from matplotlib.figure import Figure

    counts = sorted({count for by_count in paths.values() for count in by_count})
    size = (3.2 * len(counts), 1.7 * len(paths))
    figure = Figure(figsize=size, layout="constrained")
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


def draw_samples(cells: list[Cell], options: Node, directory: Path) -> list[Path]:
    """Draw what was kept of the walks with the first seed, and return the pictures' paths."""
    kept: dict[StudyWalk, np.ndarray] = {}
    for walk in walks(cells, options):
        cards = path_of(walk, directory)
        file = cards.with_suffix(".npy")
        if walk.cell.seed == 0 and walk.cell.clips != FROZEN and cards.exists() and file.exists():
            kept[walk] = np.load(file)
    if not kept:
        return []
    paths: dict[str, dict[int, np.ndarray]] = {}
    for walk, clips in kept.items():
        if walk.cell.arm == BASE:
            paths.setdefault(walk.name.rpartition("-")[0], {})[walk.evaluations] = clips
    pictures = [save_paths(paths, directory / "samples.png")] if paths else []
    by_evaluations = sorted(kept, key=lambda walk: walk.evaluations)
    own = (w for w in by_evaluations if (w.chain, w.sampler) == own_path(w.cell.arm))
    longest = {walk.cell.arm: walk for walk in own}
    for arm, walk in longest.items():
        fps = read_config(run_of(walk.cell, directory))["data"]["fps"]
        shown = torch.from_numpy(kept[walk])
        pictures.append(save_grid(shown, directory / f"{arm}.gif", fps, columns=4))
    return pictures
