"""Going on from an earlier checkpoint: what was trained beyond it becomes a run of its own.

Where it was, its checkpoints, further on, would be taken for this run's newest, and its snapshots
would be mixed into this run's averages.
"""

import re
import secrets
import shutil
from itertools import count
from pathlib import Path

import yaml

from ddpm_lightning.training.checkpoint_io import (
    BEST,
    LAST,
    DamagedCheckpoint,
    by_step,
    link,
    read,
    remove,
)


def set_aside(directory: Path, checkpoint: Path, step: int) -> Path | None:
    """Moves what a run has of later steps to a new directory in it, abandoned_1, abandoned_2, ..

    It can be sampled, evaluated and resumed like any other. None if there is no later checkpoint.

    Args:
        checkpoint: of the run, at this step; last.ckpt from now on.
    """
    checkpoints, averages = directory / "checkpoints", directory / "averages"
    last = checkpoints / LAST
    if not (last.exists() and checkpoint.samefile(last)):
        link(checkpoint, last)  # first: a process that dies here has chosen already
    later = _later(checkpoints, "step_*.ckpt", step)
    if not later:  # a killed run has later snapshots, too: they come again
        for path in _later(averages, "step_*.ckpt", step):
            remove(path)
        return None
    places = (directory / f"abandoned_{number}" for number in count(1))
    aside = next(place for place in places if not place.exists())
    aside.mkdir()
    for name in ("config.yaml", "metrics.csv"):
        if (directory / name).exists():
            shutil.copy(directory / name, aside)
    composed = yaml.safe_load((directory / "composed.yaml").read_text())
    composed["config"]["run_id"] = secrets.token_hex(4)  # W&B would make one run of both
    (aside / "composed.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    best = checkpoints / BEST
    _move([*later, *([best] if _is_later(best, step) else [])], aside / "checkpoints")
    _move(_later(averages, "step_*.ckpt", step), aside / "averages")
    for path in by_step(averages):  # both have come from these
        link(path, aside / "averages" / path.name)
    for path in _later(directory / "samples", "*", step):
        (aside / "samples").mkdir(exist_ok=True)
        path.rename(aside / "samples" / path.name)
    return aside


def _later(folder: Path, pattern: str, step: int) -> list[Path]:
    """Files of later steps; what has no number shows the newest step."""
    numbers = {path: re.fullmatch(r"step_(\d+)", path.stem) for path in folder.glob(pattern)}
    return [path for path, number in numbers.items() if number is None or int(number[1]) > step]


def _is_later(best: Path, step: int) -> bool:
    if not best.exists():
        return False
    try:
        return int(read(best)["global_step"]) > step
    except DamagedCheckpoint:
        return True


def _move(paths: list[Path], folder: Path) -> None:
    for path in paths:
        link(path, folder / path.name)
        remove(path)
