"""Fetches, checks and stores the GIFs of a list; `python ingest.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.ingest import ingest

    ingest(job.cfg)


if __name__ == "__main__":
    run_command(main, "ingest")
