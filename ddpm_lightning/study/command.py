"""python study.py: train, sample, measure, and report, as far as that is not done yet."""

import time
from math import inf
from pathlib import Path

import torch
from omegaconf import DictConfig

from ddpm_lightning.run.commands.device import choose_device
from ddpm_lightning.run.config.check import Node, check, resolved
from ddpm_lightning.run.config.errors import RunFailed, UserError, user_errors
from ddpm_lightning.study.figures import draw_samples
from ddpm_lightning.study.plan import cells, check_plan
from ddpm_lightning.study.report import write_report
from ddpm_lightning.study.sampling import sample_walks
from ddpm_lightning.study.table import Table, collect, read_table, write_table
from ddpm_lightning.study.training import check_clips, failed, is_finished, train_cells
from ddpm_lightning.training.signals import stopped_by_signals

TRAINING_SHARE = 0.65  # of the time that there is


def study(cfg: DictConfig) -> None:
    """Run what is left of a study, and report on all of it; or on a table alone."""
    config = resolved(cfg)
    check(config)
    options = config["study"]
    check_plan(options)
    if config["report"] is not None:
        path = Path(config["report"])
        print_report(read_table(path), path.parent)
        return
    directory = Path(config["directory"]).absolute()
    with user_errors("directory"):
        directory.mkdir(parents=True, exist_ok=True)
    with stopped_by_signals("the study was interrupted; the same command goes on with it"):
        table = run(options, directory, choose_device(config["device"]))
    write_table(table, directory / "results.json")
    print_report(table, directory)
    for path in draw_samples(cells(options), options, directory):
        print(f"  {path.stem:<14} {path}")
    if lost := failed(cells(options), directory):
        names = ", ".join(cell.name for cell in lost)
        raise RunFailed(f"{len(lost)} runs failed: {names}; the same command tries them again")


def run(options: Node, directory: Path, device: torch.device) -> Table:
    """Train and sample what is left, and return the table of all that is there."""
    minutes = options["minutes"]
    start, seconds = time.monotonic(), inf if minutes is None else 60 * minutes
    planned = cells(options)
    check_clips(planned, options, directory)
    if options["train"]:
        train_cells(planned, options, directory, start + TRAINING_SHARE * seconds)
    trained = [cell for cell in planned if is_finished(cell, directory)]
    if not trained:
        raise UserError(
            f"no run in {directory} is trained to its end; give study.train=true, and more than "
            f"study.minutes={minutes}"
        )
    sample_walks(trained, options, directory, device, start + seconds)
    return collect(planned, trained, options, directory)


def print_report(table: Table, directory: Path) -> None:
    """Write the report, and print where it is."""
    print(f"\n{len(table.trainings)} runs, {len(table.walks)} walks")
    for path in write_report(table, directory):
        print(f"  {path.stem:<14} {path}")
