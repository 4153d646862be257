"""Trains a video diffusion model on short animated GIFs; `python train.py --help` explains."""

from ddpm_lightning.run.cli import Job, Sweep, run_jobs
from ddpm_lightning.training.signals import stopped_by_signals


def main(job: Job) -> None:
    # Imported here: --help and mistakes on the command line need not wait for torch, nor others in
    # the configuration for Lightning.
    with stopped_by_signals("interrupted"):  # until training is under way and watches itself
        from ddpm_lightning.run.early import prepared

        start, budget = prepared(job)
        from ddpm_lightning.run.train import train

        train(start, budget, job)


def main_sweep(sweep: Sweep) -> None:
    from ddpm_lightning.run.sweep import run_sweep

    run_sweep(sweep)


if __name__ == "__main__":
    run_jobs(main, main_sweep, "config")
