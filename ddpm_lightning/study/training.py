"""The trainings of a study: one run for each cell, frozen before it starts, a process each.

Runs are those of train.py, in directories named by what is trained: a cell that is finished
is kept whatever else is asked for, one that was interrupted is resumed.
"""

import time
from pathlib import Path

from ddpm_lightning.evaluation.measures.distances import refuse_too_few
from ddpm_lightning.evaluation.subject import Reference
from ddpm_lightning.run.config.build import build_data
from ddpm_lightning.run.config.check import Node, resolved
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.config.job import composed_job
from ddpm_lightning.run.directory.compose import check_composed
from ddpm_lightning.run.directory.start import read_status, write_text
from ddpm_lightning.run.sweeps.jobs import Frozen, freeze_job, run_frozen
from ddpm_lightning.study.plan import Cell, words

WORDS = "words.txt"  # of train.py, in a run's directory


def run_of(cell: Cell, directory: Path) -> Path:
    """Return the directory of a cell's run, which need not exist."""
    return directory / "runs" / cell.name


def is_finished(cell: Cell, directory: Path) -> bool:
    """Return whether a cell was trained to its end."""
    run = run_of(cell, directory)
    return (run / WORDS).exists() and read_status(run)["status"] == "finished"


def prepare(cell: Cell, options: Node, directory: Path) -> Frozen:
    """Return the run of a cell, frozen; it is composed the first time only.

    Raises:
        UserError: for a mistake in it, and where it was begun otherwise, with other steps, say.
    """
    run, own = run_of(cell, directory), words(cell, options, str(directory))
    known = run / WORDS
    frozen = Frozen(run, cell.name, own)
    if known.exists() and known.read_text().splitlines() == own:
        return frozen
    job = composed_job("config", own)
    check_composed(resolved(job.cfg))
    freeze_job(job, run.parent)
    write_text(known, "\n".join(own) + "\n")
    return frozen


def check_clips(cells: list[Cell], options: Node, directory: Path) -> None:
    """Make or open every set of clips, before the first training.

    Raises:
        UserError: where fewer are held out than measures need, or fewer trained on than samples.
    """
    for cell in {cell.clips: cell for cell in cells}.values():
        job = composed_job("config", words(cell, options, str(directory)))
        data = build_data(resolved(job.cfg)["data"])
        with user_errors(f"study, {cell.clips} clips"):
            data.load()
            refuse_too_few(Reference(data), options["num_samples"])


def train_cells(cells: list[Cell], options: Node, directory: Path, deadline: float) -> None:
    """Train cells that are not finished; the first one says how long the rest will take.

    Args:
        deadline: of time.monotonic(), after which none is begun.
    Raises:
        UserError: for a mistake in any of them, before one is trained.
    """
    kinds = {cell._replace(seed=0): cell for cell in reversed(cells)}
    for cell in reversed(kinds.values()):
        prepare(cell, options, directory)
    left = [cell for cell in cells if not is_finished(cell, directory)]
    print(f"{len(cells)} runs, {len(cells) - len(left)} finished before, in {directory}")
    size = options["max_parallel"]
    for first in range(0, len(left), size):
        if time.monotonic() > deadline:
            print(
                f"time is up: {len(left) - first} runs are left out, {left[first].name} the first"
            )
            return
        start = time.monotonic()
        frozen = [prepare(cell, options, directory) for cell in left[first : first + size]]
        run_frozen(frozen, size, is_shown=size == 1)
        if not first:
            seconds = (time.monotonic() - start) / len(frozen)
            minutes = len(left) * seconds / 60
            print(f"plan: {len(left)} runs of {seconds:.0f} s, {minutes:.0f} minutes", flush=True)


def failed(cells: list[Cell], directory: Path) -> list[Cell]:
    """Return the cells whose runs have failed."""
    begun = (cell for cell in cells if (run_of(cell, directory) / WORDS).exists())
    return [c for c in begun if read_status(run_of(c, directory))["status"] == "failed"]
