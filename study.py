"""Does hybrid noise help, does the median chain? `python study.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.study.command import study

    study(job.cfg)


if __name__ == "__main__":
    run_command(main, "study")
