"""python sample.py: clips from a run, as a grid and one by one. Needs nothing but the run
directory.
"""

import time
from datetime import datetime
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.guidance import Conditioned, CountedCalls
from ddpm_lightning.plots.films import ReverseFilm, save_clips, save_grid
from ddpm_lightning.plots.stills import save_still_grid, save_stills
from ddpm_lightning.run.commands.asked import asked_of, describe
from ddpm_lightning.run.commands.continuation import check_invertible, continuation_of, is_by_frame
from ddpm_lightning.run.commands.device import choose_device
from ddpm_lightning.run.config.build import build_guidance, build_sampler
from ddpm_lightning.run.config.check import check, resolved
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.exchange.opened import open_checkpoint, weaker
from ddpm_lightning.samplers.noise import per_sample_generators


def sample(cfg: DictConfig) -> None:
    """Write a grid, a reverse film and single clips, and print where."""
    config = resolved(cfg)
    asked_text = config.pop("asked")  # may hold anything
    check(config)
    sampler, guidance = build_sampler(config["sampler"]), build_guidance(config["guidance"])
    device = choose_device(config["device"])
    opened = open_checkpoint(config)
    run, denoiser = opened.run, opened.denoiser
    asked, columns = asked_of(denoiser.conditions, asked_text, config["num_samples"])
    weak = weaker(guidance, run)
    counted = CountedCalls(denoiser.to(device).requires_grad_(False))
    counted_weak = weak and CountedCalls(weak.to(device))
    with user_errors("guidance"):
        guidance.guide(counted, asked[:1], counted_weak)
    form = clip_format(**run.config["data"])
    continued = continuation_of(config, form, denoiser.statistics, is_by_frame(run.config))
    if continued.invert:
        check_invertible(sampler.stochastic, denoiser.conditions)
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    directory = Path(config["output"] or run.directory / "samples" / name)
    if (directory / "clips").exists():
        raise UserError(f"{directory} already holds samples; choose another output")
    with user_errors("output"):
        (directory / "clips").mkdir(parents=True)
    film = ReverseFilm(denoiser.process, denoiser.statistics.restore)
    start = time.perf_counter()
    parts = []
    with user_errors("sampler"):
        for first in range(0, len(asked), config["batch_size"]):
            numbers = range(first, min(first + config["batch_size"], len(asked)))
            annotations = [asked[i] for i in numbers]
            estimator = guidance.guide(counted, annotations, counted_weak)
            conditions = denoiser.conditions
            bare = Conditioned(counted, **conditions.encode(conditions.without_wishes(annotations)))
            generators = per_sample_generators(config["seed"], numbers)
            record = None if first else film.record
            x = continued.sample(sampler, estimator, bare, generators, device, record)
            parts.append(denoiser.statistics.restore(x.to(device)).cpu())
    clips = torch.cat(parts)
    seconds = time.perf_counter() - start
    num_calls = counted.num_clips + (counted_weak.num_clips if counted_weak else 0)
    written = write_samples(clips, film, directory, form.fps, columns)
    print(
        f"{len(clips)} clips from {run.checkpoint} ({opened.origin}) "
        f"in {seconds:.1f} s on {device}, {num_calls // len(clips)} network calls each\n"
        f"{describe(asked, columns)}"
        f"{continued.description}"
        f"{written}"
    )


def write_samples(
    clips: Tensor, film: ReverseFilm, directory: Path, fps: float, columns: int | None
) -> str:
    """Write clips uint8 (N, F, H, W, C) and their film, and return lines that say where.

    They are GIFs, and PNGs where clips have one frame; the film is a GIF.
    """
    if clips.shape[1] == 1:
        grid = save_still_grid(clips, directory / "grid.png", columns)
        save_stills(clips, directory / "clips")
    else:
        grid = save_grid(clips, directory / "grid.gif", fps, columns)
        save_clips(clips, directory / "clips", fps)
    reverse = film.save(directory / "reverse.gif", fps)
    return (
        f"  grid           {grid}\n"
        f"  reverse film   {reverse}\n"
        f"  single clips   {directory / 'clips'}/"
    )
