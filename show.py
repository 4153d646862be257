"""Shows diffusion in pictures, without a trained network; `python show.py --help` explains."""

from ddpm_lightning.run.cli import Job, run_command


def main(job: Job) -> None:
    from ddpm_lightning.run.show import show

    show(job)


if __name__ == "__main__":
    run_command(main, "show")
