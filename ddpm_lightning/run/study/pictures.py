"""Samples to look at, of walks with one seed: paths side by side at equal calls, and 4 x 4 GIFs."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm_lightning.plots.films import save_grid
from ddpm_lightning.run.checkpoint import read_config
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.study.figures import save_paths
from ddpm_lightning.run.study.plan import BASE, FROZEN, Cell
from ddpm_lightning.run.study.sampling import StudyWalk, path_of, walks
from ddpm_lightning.run.study.training import run_of


def draw_samples(cells: list[Cell], options: Node, directory: Path) -> list[Path]:
    """Draw what was kept of the walks with the first seed, and return the pictures' paths."""
    drawn = [w for w in walks(cells, options) if w.cell.seed == 0 and w.cell.clips != FROZEN]
    drawn = [walk for walk in drawn if path_of(walk, directory).exists()]
    if not drawn:
        return []
    data = read_config(run_of(drawn[0].cell, directory))["data"]
    kept = {walk: kept_clips(path_of(walk, directory), data) for walk in drawn}
    paths: dict[str, dict[int, np.ndarray]] = {}
    for walk, clips in kept.items():
        if walk.cell.arm == BASE:
            paths.setdefault(walk.name.rpartition("-")[0], {})[walk.evaluations] = clips.numpy()
    pictures = [save_paths(paths, directory / "samples.png")] if paths else []
    longest: dict[str, StudyWalk] = {}
    for walk in drawn:
        if walk.sampler in ("ancestral", "midpoint"):
            longest.setdefault(walk.cell.arm, walk)
            if walk.evaluations > longest[walk.cell.arm].evaluations:
                longest[walk.cell.arm] = walk
    for arm, walk in longest.items():
        pictures.append(save_grid(kept[walk], directory / f"{arm}.gif", data["fps"], columns=4))
    return pictures


def kept_clips(cards: Path, data: Node) -> Tensor:
    """Return the first clips of a walk, uint8 (N, F, H, W, C)."""
    size = data["size"] if isinstance(data["size"], list) else [data["size"]] * 2
    shape = (-1, data["num_frames"], *size, data["channels"])
    values = np.frombuffer(cards.with_suffix(".clips").read_bytes(), dtype=np.uint8)
    return torch.from_numpy(values.copy()).view(shape)
