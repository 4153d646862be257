"""Measures a trained run; `python evaluate.py --help` explains."""

from omegaconf import DictConfig

from ddpm_lightning.run.cli import run_command


def main(cfg: DictConfig) -> None:
    from ddpm_lightning.run.evaluate import evaluate_run

    evaluate_run(cfg)


if __name__ == "__main__":
    run_command(main, "evaluate")
