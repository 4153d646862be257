"""Shows diffusion in pictures, without a trained network; `python show.py --help` explains."""

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    from ddpm_lightning.run.commands.show import show

    show(job)


if __name__ == "__main__":
    run_command(main, "show")
