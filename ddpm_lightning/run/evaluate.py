"""python evaluate.py: what a run is worth, by any measure, with a card for each number."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torchvision.io import encode_png

from ddpm_lightning.data.clips.base import CHECKPOINT_KEY, ClipData
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measure import Measure, cards_of, write_cards
from ddpm_lightning.evaluation.report import table
from ddpm_lightning.evaluation.subject import Reference, Subject, Training
from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.run.build import build_data
from ddpm_lightning.run.checkpoint import (
    STORED_TARGETS,
    Run,
    choose_denoiser,
    find_run,
    load_denoisers,
    read_checkpoint,
)
from ddpm_lightning.run.config import Node, check, check_without_lightning, resolved
from ddpm_lightning.run.device import choose_device
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.samplers.base import Sampler


def evaluate_run(cfg: DictConfig) -> None:
    """Print a table of all numbers and write their cards."""
    config = resolved(cfg)
    check({key: value for key, value in config.items() if key != "data"})
    run = find_run(str(config["checkpoint"]), Path(config["outputs_dir"]))
    measures = build_measures(config["measure"])
    sampler = build_sampler(config["sampler"] or run.config["sampler"])
    device = choose_device(config["device"])
    data = open_data(run, config["data"])
    reference = Reference(data, config["batch_size"])
    with user_errors("model"):
        training = Training(
            *(instantiate(run.config["model"][key], _convert_="all") for key in ("loss", "times"))
        )
    directory = Path(config["output"] or run.directory / "evaluation")
    denoisers, step = choose_denoisers(run, config["weights"])
    subjects = {
        weights: Subject(
            denoiser.to(device),
            reference,
            device,
            sampler,
            config["num_samples"],
            config["seed"],
            training,
        )
        for weights, denoiser in denoisers.items()
    }
    assert data.store is not None
    print(data.store.summary())
    print(f"{run.checkpoint}, step {step}: {len(data.val_set)} held-out clips")
    refusals = []
    for name, measure in measures.items():
        settings = config["measure"][name]
        cards = []
        try:
            for weights, subject in subjects.items():
                results = measure(subject)
                at = {"checkpoint": str(run.checkpoint), "step": step, "weights": weights}
                cards += cards_of(measure, subject, results, at, settings)
                if (picture := measure.picture(subject, results)) is not None:
                    write_picture(picture, directory / f"{name}_{weights}.png")
        except ValueError as error:
            refusals.append(f"{name}: {error}")
            print(f"{name} is not measured: {error}")
            continue
        write_cards(cards, directory / f"{name}.json")
        print(table(cards))
    if refusals and not config["skip"]:
        raise UserError("\n".join(refusals))
    print(f"saved to {directory}")


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) as a PNG."""
    data = bytes(encode_png(torch.from_numpy(picture).permute(2, 0, 1)).numpy())
    write_file(path, [data], len(data))


def build_measures(chosen: Node) -> dict[str, Measure]:
    """Build the chosen measures by name; those with equal extractors share one, which features are
    computed once for.
    """
    extractors: dict[str, Extractor] = {}
    measures: dict[str, Measure] = {}
    for name, node in chosen.items():
        own = {k: v for k, v in node.items() if k != "extractor"} | {"_partial_": True}
        parts = {}
        if "extractor" in node:
            key = json.dumps(node["extractor"])
            if key not in extractors:
                with user_errors("extractor"):
                    extractors[key] = instantiate(node["extractor"], _convert_="all")
            parts = {"extractor": extractors[key]}
        with user_errors(f"measure.{name}"):
            measures[name] = instantiate(own, _convert_="all")(**parts)
    return measures


def build_sampler(node: Node) -> Sampler:
    """Build a sampler of the command line, or of a run's stored configuration."""
    check_without_lightning({"sampler": node}, STORED_TARGETS)
    with user_errors("sampler"):
        sampler: Sampler = instantiate(node, _convert_="all")
    return sampler


def open_data(run: Run, moved: Node) -> ClipData:
    """Open the clips that a run trains and validates on, whatever has come since.

    Args:
        moved: where they lie now; None where the run found them.
    """
    overrides = {key: value for key, value in moved.items() if value is not None}
    node = {**run.config["data"], **overrides}
    node |= {"frozen": True} if "frozen" in node else {}  # measuring fetches nothing
    check({"data": node})
    data = build_data(node)
    with user_errors("data"):
        data.load()
        if not overrides:
            state = read_checkpoint(run.checkpoint)
            data.load_state_dict(state.get(CHECKPOINT_KEY, {}))
    return data


def choose_denoisers(run: Run, weights: Any) -> tuple[dict[str, Denoiser], int]:
    """Return denoisers by the names of their weights, and their step.

    Args:
        weights: a name, the length of an average, or a list of them; None: averaged weights where
            the run has any, else raw ones.
    """
    if weights is None:
        denoisers, step = load_denoisers(run)
        name = "ema" if "ema" in denoisers else "raw"
        return {name: denoisers[name]}, step
    names = weights if isinstance(weights, list) else [weights]
    chosen = {str(name): choose_denoiser(run, name) for name in names}
    steps = {step for _, step in chosen.values()}
    if len(steps) != 1:  # an average that is rebuilt is of the last snapshot
        raise UserError(f"weights={weights} are of steps {sorted(steps)}; measure them one by one")
    return {name: denoiser for name, (denoiser, _) in chosen.items()}, steps.pop()
