"""python sample.py: clips from a run, as a grid and one by one. Needs nothing but the run
directory.
"""

import time
from datetime import datetime
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.plots.films import ReverseFilm, save_clips, save_grid
from ddpm_lightning.run.checkpoint import Run, choose_denoiser, find_run
from ddpm_lightning.run.config import Node, check, resolved
from ddpm_lightning.run.device import choose_device
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.run.export import SUFFIX, load_exported
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators


def sample(cfg: DictConfig) -> None:
    """Writes grid.gif, reverse.gif and single clips, and prints where."""
    config = resolved(cfg)
    check(config)
    with user_errors("sampler"):
        sampler: Sampler = instantiate(config["sampler"], _convert_="all")
    device = choose_device(config["device"])
    run, denoiser, step = find_denoiser(config)
    form = clip_format(**run.config["data"])
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    directory = Path(config["output"] or run.directory / "samples" / name)
    if (directory / "clips").exists():
        raise UserError(f"{directory} already holds samples; choose another output")
    with user_errors("output"):
        (directory / "clips").mkdir(parents=True)
    film = ReverseFilm(denoiser.statistics.restore)
    start = time.perf_counter()
    parts = []
    with user_errors("sampler"):
        for first in range(0, config["num_samples"], config["batch_size"]):
            numbers = range(first, min(first + config["batch_size"], config["num_samples"]))
            x = sampler.sample(
                denoiser.to(device),
                (len(numbers), form.channels, form.num_frames, form.height, form.width),
                generator=per_sample_generators(config["seed"], numbers),
                device=device,
                callback=None if first else film.record,
            )
            parts.append(denoiser.statistics.restore(x).cpu())
    clips = torch.cat(parts)
    seconds = time.perf_counter() - start
    grid = save_grid(clips, directory / "grid.gif", form.fps)
    reverse = film.save(directory / "reverse.gif", form.fps)
    singles = save_clips(clips, directory / "clips", form.fps)
    print(
        f"{len(clips)} clips from {run.checkpoint} (step {step}, {config['weights']} weights) "
        f"in {seconds:.1f} s on {device}, {sampler.num_calls} network calls each\n"
        f"  grid           {grid}\n"
        f"  reverse film   {reverse}\n"
        f"  single clips   {singles[0].parent}/"
    )


def find_denoiser(config: Node) -> tuple[Run, Denoiser, int]:
    """The run, its denoiser with the weights that are asked for, and their step."""
    given, weights = str(config["checkpoint"]), config["weights"]
    if not given.endswith(SUFFIX):
        run = find_run(given, Path(config["outputs_dir"]))
        return run, *choose_denoiser(run, weights)
    run, denoiser, step, held = load_exported(Path(given))
    if str(weights) != held:
        raise UserError(f"{given} holds the {held} weights; add weights={held}")
    return run, denoiser, step
