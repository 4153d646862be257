"""Draws clips from a trained run; `python sample.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.sample import sample

    sample(job.cfg)


if __name__ == "__main__":
    run_command(main, "sample")
