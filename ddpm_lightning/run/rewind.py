"""Resuming from an earlier checkpoint: what was trained beyond it becomes a run of its own.

Where it was, its checkpoints, further on, would be taken for this run's newest, and its snapshots
would be mixed into this run's averages.
"""

import re
import secrets
import shutil
from contextlib import suppress
from itertools import count
from os.path import relpath
from pathlib import Path

import yaml

from ddpm_lightning.files.atomic import remove_temporaries
from ddpm_lightning.files.checkpoints import (
    BEST,
    LAST,
    STEP,
    DamagedCheckpoint,
    by_step,
    is_whole,
    link,
    read,
    remove,
)
from ddpm_lightning.run.checkpoint import read_yaml
from ddpm_lightning.run.errors import UserError


def split_off(directory: Path, checkpoint: Path, step: int) -> Path | None:
    """Archive what a run has of later steps in a new directory in it, abandoned_1, abandoned_2, ..

    It can be sampled, evaluated and resumed like any other. If a process dies on the way, the next
    start resumes with its .abandoned.

    Args:
        checkpoint: of the run, at this step; last.ckpt from now on.
    Returns:
        The directory, None if there is no later checkpoint.
    Raises:
        UserError: if the checkpoint is of another step by now, for no lock was held when it was
            chosen.
    """
    checkpoints, averages = directory / "checkpoints", directory / "averages"
    if (newest := int(read(checkpoint)["global_step"])) != step:
        raise UserError(
            f"{relpath(directory)} was still being trained, from step {step} to {newest}; "
            "start again to go on from there"
        )
    _choose(checkpoint, checkpoints / LAST)
    later, snapshots = _later(checkpoints, step), _later(averages, step)
    unfinished = directory / ".abandoned"
    if not later and not unfinished.exists():
        for path in snapshots:  # of a run that was killed: they come again
            remove(path)
        return None
    unfinished.mkdir(exist_ok=True)
    for folder in filter(Path.is_dir, unfinished.iterdir()):
        remove_temporaries(folder)
    for name in ("config.yaml", "metrics.csv"):
        if (directory / name).exists():
            shutil.copy(directory / name, unfinished)
    composed = read_yaml(directory / "composed.yaml")
    composed["config"]["run_id"] = secrets.token_hex(4)  # W&B would make one run of both
    (unfinished / "composed.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    (unfinished / "samples").mkdir(exist_ok=True)
    for path in (directory / "samples").glob("*.gif"):
        number = _number(path)
        if number is None or number > step:  # without a number it shows the newest step
            path.rename(unfinished / "samples" / path.name)
    _move(snapshots, unfinished / "averages")
    for path in by_step(averages):  # both have come from these
        link(path, unfinished / "averages" / path.name)
    best = checkpoints / BEST
    _move([best] if _is_later(best, step) else [], unfinished / "checkpoints")
    _move(later, unfinished / "checkpoints")  # at last: as long as one is there, this is resumed
    places = (directory / f"abandoned_{number}" for number in count(1))
    return unfinished.rename(next(place for place in places if not place.exists()))


def _choose(checkpoint: Path, last: Path) -> None:
    """Make a checkpoint last.ckpt; it and the one before, if intact, have numbers from now on.

    A process that dies in a save may have written last.ckpt alone.
    """
    for path in filter(Path.exists, {last: None, checkpoint: None}):
        if not any(numbered.samefile(path) for numbered in by_step(last.parent)):
            with suppress(DamagedCheckpoint):
                numbered = last.with_name(STEP.format(read(path)["global_step"]))
                if not is_whole(numbered):
                    link(path, numbered)
    if last.is_dir():
        last.rename(last.with_name(f"{last.name}.folder"))
    if checkpoint.resolve() != last.resolve():
        link(checkpoint, last)
        last.touch()  # the newest run is known by it


def _later(folder: Path, step: int) -> list[Path]:
    """Return the numbered files of later steps."""
    return [path for path in folder.glob("step_*") if (_number(path) or 0) > step]


def _number(path: Path) -> int | None:
    number = re.fullmatch(r"step_(\d+)", path.stem) if path.suffix in (".ckpt", ".gif") else None
    return int(number[1]) if number else None


def _is_later(best: Path, step: int) -> bool:
    try:
        return best.exists() and int(read(best)["global_step"]) > step
    except DamagedCheckpoint:
        return True


def _move(paths: list[Path], folder: Path) -> None:
    for path in paths:
        link(path, folder / path.name)
        remove(path)
