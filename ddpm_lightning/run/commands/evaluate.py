"""python evaluate.py: what a run is worth, by any measure, with a card for each number."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from ddpm_lightning.data.clips.base import CHECKPOINT_KEY, ClipData
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measure import Measure
from ddpm_lightning.evaluation.subject import Reference, Subject, Training
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.run.commands.device import choose_device
from ddpm_lightning.run.commands.results import Results, build_curve
from ddpm_lightning.run.config.build import build_data, build_guidance, build_sampler
from ddpm_lightning.run.config.check import Node, check, check_options, resolved
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.directory.checkpoint import (
    Run,
    check_places,
    choose_denoiser,
    find_run,
    read_checkpoint,
)
from ddpm_lightning.run.exchange.opened import weaker
from ddpm_lightning.run.exchange.pipeline import is_pipeline, load_pipeline


def evaluate_run(cfg: DictConfig) -> None:
    """Print a table for each measure and write the cards of its numbers."""
    config = resolved(cfg)
    check({key: value for key, value in config.items() if key != "data"})
    check_options("curve", config["curve"])
    if not config.get("measure"):
        raise UserError("measure=[] names none; choose measure=levels, say, or measure=all")
    path, weights = str(config["checkpoint"]), config["weights"]
    pipeline = load_pipeline(path, weights) if is_pipeline(path) else None
    run = pipeline[0] if pipeline else find_run(path, Path(config["outputs_dir"]))
    measures = build_measures(config["measure"])
    data = open_data(run, config["data"])
    denoisers, step = (
        ({"diffusers": pipeline[1]}, None) if pipeline else choose_denoisers(run, weights)
    )
    has_curve = bool(config["curve"]["samplers"])
    along_curve = {name: m for name, m in measures.items() if has_curve and m.of_samples}
    if has_curve and not along_curve:
        raise UserError("curve.samplers: no measure is one of samples; add measure=quality")
    reference = Reference(data, config["batch_size"])
    denoiser = next(iter(denoisers.values()))
    process, floor = denoiser.process, log_snr_floor(reference.shape(1))
    curve = build_curve(config["curve"], process, floor)
    results = Results(
        {
            "checkpoint": str(run.checkpoint),
            "step": step,
            "standardised_by": str(denoiser.statistics),
        },
        config["measure"],
        Path(config["output"] or run.directory / "evaluation"),
    )
    assert data.store is not None
    print(data.store.summary())
    at = "" if step is None else f", step {step}"
    print(f"{run.checkpoint}{at}: {len(data.val_set)} held-out clips")
    subjects = build_subjects(config, run, denoisers, reference)
    for name in [name for name in measures if name not in along_curve]:
        results.measure(name, measures[name], subjects)
    results.measure_curve(along_curve, curve, subjects)
    if results.refusals and not config["skip"]:
        raise UserError("\n".join(results.refusals))
    print(f"saved to {results.directory}")


def build_measures(chosen: Node) -> dict[str, Measure]:
    """Build the chosen measures by name; equal extractors are one object, whose features are
    computed once.
    """

    @cache
    def extractor(node: str) -> Extractor:
        with user_errors("extractor"):
            built: Extractor = instantiate(json.loads(node), _convert_="all")
        return built

    measures: dict[str, Measure] = {}
    for name, node in chosen.items():
        own = {key: value for key, value in node.items() if key != "extractor"}
        parts = (
            {"extractor": extractor(json.dumps(node["extractor"]))} if "extractor" in node else {}
        )
        with user_errors(f"measure.{name}"):
            measures[name] = instantiate(own, _partial_=True, _convert_="all")(**parts)
    return measures


def build_subjects(
    config: Node, run: Run, denoisers: dict[str, Denoiser], reference: Reference
) -> dict[str, Subject]:
    """Return what is measured, by the names of weights."""
    device: torch.device = choose_device(config["device"])
    sampler = build_sampler(config["sampler"] or run.config["sampler"])
    training = build_training(run, device)
    guidance = build_guidance(config["guidance"])
    weak = weaker(guidance, run)
    weak = weak and weak.to(device)
    with user_errors("guidance"):
        for denoiser in denoisers.values():
            guidance.guide(denoiser, [{}], weak)
    return {
        weights: Subject(
            denoiser.to(device),
            reference,
            sampler,
            device,
            config["num_samples"],
            config["seed"],
            training,
            guidance=guidance,
            weak=weak,
        )
        for weights, denoiser in denoisers.items()
    }


def build_training(run: Run, device: torch.device) -> Training:
    """Return what a run was trained with; a loss that learns, as it had learned."""
    with user_errors("model"):
        loss, times = (
            instantiate(run.config["model"][key], _convert_="all") for key in ("loss", "times")
        )
    if isinstance(loss, nn.Module):
        state = read_checkpoint(run.checkpoint)["state_dict"]
        own = {key.removeprefix("loss."): v for key, v in state.items() if key.startswith("loss.")}
        loss.load_state_dict(own)
        loss.to(device).eval()
    return Training(loss, times)


def open_data(run: Run, moved: Node) -> ClipData:
    """Open the clips that a run trains and validates on, whatever has come since.

    Args:
        moved: where they lie now; None where the run found them.
    """
    overrides = {key: value for key, value in moved.items() if value is not None}
    node = {**run.config["data"], **overrides}
    if "path" not in node and "list" not in node:
        raise UserError(
            f"{run.directory} has no clips to be measured on; add data.path=DIR, a folder of GIFs, "
            "of which the middle frame counts"
        )
    node |= {"frozen": True} if "frozen" in node else {}  # measuring fetches nothing
    check({"data": node})
    check_places({"data": node}, run.directory, {f"data.{key}" for key in overrides})
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
        weights: those of choose_denoiser, or a list of them.
    """
    names = weights if isinstance(weights, list) else [weights]
    if not names:
        raise UserError("weights=[] names none; leave it away, or give weights=[raw,ema]")
    chosen = [choose_denoiser(run, name) for name in names]
    steps = {step for _, _, step in chosen}
    if len(steps) > 1:  # an average that is rebuilt is of the last snapshot
        raise UserError(f"weights={weights} are of steps {sorted(steps)}; measure them one by one")
    return {name: denoiser for denoiser, name, _ in chosen}, steps.pop()
