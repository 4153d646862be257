"""Fetches, checks and stores the GIFs of a list; `python ingest.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.ingest import ingest

    ingest(job.cfg)


if __name__ == "__main__":
    run_command(main, "ingest")
