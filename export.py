"""Writes a trained denoiser into one file; `python export.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.export import export

    export(cfg)


if __name__ == "__main__":
    run_command(main, "export")
