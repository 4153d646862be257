"""What becomes of the files of a run that is resumed, in its place or, forked, in another."""

import shutil
from pathlib import Path

from ddpm_lightning.files.checkpoints import (
    BEST,
    LAST,
    STEP,
    by_step,
    copy,
    is_whole,
    link,
)


def fork(checkpoint: Path, step: int, directory: Path) -> None:
    """Copy what a run had reached at a checkpoint into the directory of another."""
    run, own = checkpoint.absolute().parents[1], directory / "checkpoints" / STEP.format(step)
    copy(checkpoint, own)
    link(own, own.with_name(LAST))
    later = _later(run / "averages", step)
    for path in by_step(run / "averages"):
        if path not in later:
            copy(path, directory / "averages" / path.name)
    for name in ("metrics.csv", "clips.json"):
        if (run / name).exists():
            shutil.copy(run / name, directory)


def discard_later(directory: Path, step: int) -> None:
    """Remove snapshots of later steps, which are trained again, and rename damaged checkpoints.

    There is no later checkpoint that is not damaged. By its name it would count as the newest, a
    damaged best would stay the best, and a folder in the place of the last cannot be replaced.
    """
    for path in _later(directory / "averages", step):
        path.unlink()
    named = [directory / "checkpoints" / name for name in (LAST, BEST)]
    damaged = [path for path in named if path.exists() and not is_whole(path)]
    for path in [*_later(directory / "checkpoints", step), *damaged]:
        path.rename(path.with_suffix(".damaged"))


def _later(folder: Path, step: int) -> list[Path]:
    """Return the numbered files of later steps."""
    numbers = {path: path.stem.removeprefix("step_") for path in by_step(folder)}
    return [path for path, number in numbers.items() if number.isdigit() and int(number) > step]
