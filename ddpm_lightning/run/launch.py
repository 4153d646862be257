"""python train.py: one run, by one process or as one of several ranks of it."""

import logging

from ddpm_lightning.run.allocator import keep_freed
from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.early import prepared
from ddpm_lightning.run.ranks import check_nodes, gathered, joined, own_rank
from ddpm_lightning.run.slurm import going_on
from ddpm_lightning.training.signals import stopped_by_signals


def launch(job: Job) -> None:
    """Settles what is trained, and trains it. What can be refused is, before Lightning is imported,
    which takes longest.
    """
    keep_freed()
    with stopped_by_signals("interrupted"):  # until training is under way and watches itself
        if rank := own_rank():
            logging.getLogger().setLevel(logging.WARNING)
            with joined(job, rank) as (own, watch):
                start, budget = prepared(own)
                from ddpm_lightning.run.train import follow

                follow(start, budget, watch)
        else:
            with gathered(job) as others:
                start, budget = prepared(going_on(job))
                check_nodes(others, start.config["trainer"].get("num_nodes", 1))
                from ddpm_lightning.run.train import lead

                lead(start, budget, job, others)
