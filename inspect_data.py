"""Shows what a data set holds, on one HTML page; `python inspect_data.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.inspect_data import inspect_data

    inspect_data(job.cfg)


if __name__ == "__main__":
    run_command(main, "inspect_data")
