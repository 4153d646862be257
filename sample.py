"""Draws clips from a trained run; `python sample.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.sample import sample

    sample(job.cfg)


if __name__ == "__main__":
    run_command(main, "sample")
