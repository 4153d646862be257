"""Shows diffusion in pictures, without a trained network; `python show.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.show import show

    show(cfg)


if __name__ == "__main__":
    run_command(main, "show")
