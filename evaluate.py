"""Measures a trained run; `python evaluate.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.evaluate import evaluate_run

    evaluate_run(job.cfg)


if __name__ == "__main__":
    run_command(main, "evaluate")
