"""Shows what a data set holds, on one HTML page; `python inspect_data.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.inspect_data import inspect_data

    inspect_data(cfg)


if __name__ == "__main__":
    run_command(main, "inspect_data")
