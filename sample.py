"""Draws clips from a trained run; `python sample.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.sample import sample

    sample(cfg)


if __name__ == "__main__":
    run_command(main, "sample")
