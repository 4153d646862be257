"""python study.py: train, sample, measure, and report, as far as that is not done yet."""

import time
from math import inf
from pathlib import Path

from omegaconf import DictConfig

from ddpm_lightning.run.config import check, check_options, resolved
from ddpm_lightning.run.study.clips import check_clips
from ddpm_lightning.run.study.plan import cells, check_plan
from ddpm_lightning.run.study.sampling import sample_walks
from ddpm_lightning.run.study.training import train_cells


def study(cfg: DictConfig) -> None:
    """Run what is left of a study, and report on all of it."""
    config = resolved(cfg)
    check(config)
    options = config["study"]
    check_options("study", options)
    check_plan(options)
    directory = Path(config["directory"]).absolute()
    minutes = options["minutes"]
    deadline = inf if minutes is None else time.monotonic() + 60 * minutes
    planned = cells(options)
    check_clips(planned, options, directory)
    train_cells(planned, options, directory, deadline)
    sample_walks(planned, options, directory, deadline)
