"""Trains a video diffusion model on short animated GIFs; `python train.py --help` explains."""

import gc

from ddpm_lightning.run.commands.command import run_command
from ddpm_lightning.run.commands.sweep import run_sweep
from ddpm_lightning.run.config.job import Job


def main(job: Job) -> None:
    # Imported here: --help and mistakes on the command line need not wait for torch.
    from ddpm_lightning.run.commands.train import train

    train(job)


if __name__ == "__main__":
    gc.disable()  # while modules are imported: what they make stays, and it slows them down
    run_command(main, "config", run_sweep)
