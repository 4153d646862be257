"""Trains a video diffusion model on short animated GIFs; `python train.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    # Imported here: --help and mistakes on the command line need not wait for torch.
    from ddpm_lightning.run.train import train

    train(cfg)


if __name__ == "__main__":
    run_command(main, "config")
