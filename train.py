"""Trains a video diffusion model on short animated GIFs; `python train.py --help` explains."""

from ddpm_lightning.run.cli import Job, Sweep, run_jobs


def main(job: Job) -> None:
    # Imported here: --help and mistakes on the command line need not wait for torch.
    from ddpm_lightning.run.train import train

    train(job)


def sweep(jobs: Sweep) -> None:
    from ddpm_lightning.run.sweep import run_sweep

    run_sweep(jobs)


if __name__ == "__main__":
    run_jobs(main, sweep, "config")
