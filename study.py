"""Does hybrid noise help, does the median chain? `python study.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.study.command import study

    study(job.cfg)


if __name__ == "__main__":
    run_command(main, "study")
