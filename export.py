"""Writes a trained denoiser into one file; `python export.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.export import export

    export(job.cfg)


if __name__ == "__main__":
    run_command(main, "export")
