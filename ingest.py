"""Fetches, checks and stores the GIFs of a list; `python ingest.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.ingest import ingest

    ingest(cfg)


if __name__ == "__main__":
    run_command(main, "ingest")
