"""Shows what a data set holds, on one HTML page; `python inspect_data.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.inspect_data import inspect_data

    inspect_data(job.cfg)


if __name__ == "__main__":
    run_command(main, "inspect_data")
