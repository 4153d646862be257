"""python evaluate.py: validation loss of a run, raw and averaged weights, by log-SNR, on fixed
pairs.
"""

import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from ddpm_lightning.data.clips.base import CHECKPOINT_KEY, ClipData
from ddpm_lightning.evaluation.levels import measure_levels
from ddpm_lightning.evaluation.likelihoods import measure, summary
from ddpm_lightning.evaluation.report import table
from ddpm_lightning.likelihood.base import Likelihood
from ddpm_lightning.run.checkpoint import find_run, load_denoisers, read_checkpoint
from ddpm_lightning.run.config import check, resolved
from ddpm_lightning.run.device import choose_device
from ddpm_lightning.run.errors import user_errors


def evaluate_run(cfg: DictConfig) -> None:
    """Print the table and write evaluation.json beside the run's configuration."""
    config = resolved(cfg)
    check({key: value for key, value in config.items() if key != "data"})
    run = find_run(str(config["checkpoint"]), Path(config["outputs_dir"]))
    device = choose_device(config["device"])
    overrides = {k: v for k, v in config["data"].items() if v is not None}
    node = {**run.config["data"], **overrides}
    node |= {"frozen": True} if "frozen" in node else {}  # measuring fetches nothing
    check({"data": node})
    with user_errors("data"):
        data: ClipData = instantiate(node, _convert_="all")
        data.load()
        if not overrides:  # the clips that the run validates on, whatever has come since
            state = read_checkpoint(run.checkpoint)
            data.load_state_dict(state.get(CHECKPOINT_KEY, {}))
    denoisers, step = load_denoisers(run)
    results = {
        weights: measure_levels(denoiser.to(device), data.val_loader(), len(data.val_set), device)
        for weights, denoiser in denoisers.items()
    }
    likelihoods = {}
    if config["likelihood"] is not None:
        with user_errors("likelihood"):
            likelihood: Likelihood = instantiate(config["likelihood"], _convert_="all")
            likelihoods = {
                weights: summary(
                    measure(likelihood, denoiser, data.val_loader(), config["num_clips"], device)
                )
                for weights, denoiser in denoisers.items()
            }
    report = {
        "checkpoint": str(run.checkpoint),
        "step": step,
        "num_clips": len(data.val_set),
        **{
            weights: {
                "val/error": errors.mean(),
                "standard_error": errors.standard_error(),
                "by_level": [error._asdict() for error in errors.by_level()],
            }
            for weights, errors in results.items()
        },
        "likelihood": likelihoods or None,
    }
    path = run.directory / "evaluation.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    assert data.store is not None
    print(data.store.summary())
    print(f"{run.checkpoint}, step {step}: {len(data.val_set)} validation clips")
    print(table(results))
    for weights, found in likelihoods.items():
        error = found["bits_standard_error"]
        spread = f" +- {error:.4f}" if error is not None else ""
        print(
            f"{weights} likelihood: {found['bits_per_value']:.4f}{spread} bits per value, "
            f"{found['nats_per_value']:.4f} nats ({found['num_clips']} clips)"
        )
    print(f"saved to {path}")
