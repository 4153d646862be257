"""Writes a trained denoiser into one file; `python export.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.export import export

    export(job.cfg)


if __name__ == "__main__":
    run_command(main, "export")
