"""Measures a trained run; `python evaluate.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.evaluate import evaluate_run

    evaluate_run(job.cfg)


if __name__ == "__main__":
    run_command(main, "evaluate")
