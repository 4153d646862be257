"""python train.py: one Hydra job = one run, in a directory of its own, finished or marked failed.

Lightning, which takes seconds to import, comes after denoiser and data, which may be refused.
"""

import random

import numpy as np
import torch

from ddpm_lightning.run.config.build import build_data, build_denoiser
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.directory.compose import check_composed, composed_start
from ddpm_lightning.run.directory.start import reserved
from ddpm_lightning.run.fitting.agent import launch
from ddpm_lightning.run.fitting.allocator import keep_freed
from ddpm_lightning.run.fitting.ranks import rendezvous
from ddpm_lightning.run.fitting.settle import settled, with_conditions
from ddpm_lightning.training.signals import stopped_by_signals


def train(job: Job) -> None:
    """Train one run: compose, build, check, record, fit, finish. Every rank of it does this."""
    keep_freed()
    with stopped_by_signals("interrupted"), rendezvous(job) as ranks:
        composed = ranks.start or composed_start(ranks.job)
        if num_ranks := ranks.num_to_start(composed.config["trainer"]):
            launch(num_ranks)
            return
        with reserved(composed) as unsettled:
            check_composed(unsettled.config)
            seed_everything(unsettled.config["seed"])
            data = build_data(unsettled.config["data"])
            conditioned, conditions = with_conditions(unsettled, data)
            denoiser = build_denoiser(conditioned.config["model"], conditions)
            start, budget = settled(conditioned, denoiser)
            data.batch_size = budget.batch_size
            from ddpm_lightning.run.fitting.fit import build_run, check, finish, fit, record

            run = build_run(start, denoiser, data, budget)
            check(run)
        with record(run, ranks):
            ranks.send(run.start)
            fit(run)
            finish(run)


def seed_everything(seed: int) -> None:
    """Seed what the initial weights are drawn from; all later draws are keyed by their step."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
