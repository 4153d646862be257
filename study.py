"""Does hybrid noise help, does the median chain? `python study.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.study.command import study

    study(cfg)


if __name__ == "__main__":
    run_command(main, "study")
