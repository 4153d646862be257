"""python sample.py: clips from a run, as a grid and one by one. Needs nothing but the run
directory.
"""

import time
from datetime import datetime
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.plots.films import ReverseFilm, save_clips, save_grid
from ddpm_lightning.run.checkpoint import Run, find_run, load_denoisers, rebuild_average
from ddpm_lightning.run.config import check, resolved
from ddpm_lightning.run.device import choose_device
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.training.datamodule import clip_format


def sample(cfg: DictConfig) -> None:
    """Writes grid.gif, reverse.gif and single clips, and prints where."""
    config = resolved(cfg)
    check(config)
    run = find_run(str(config["checkpoint"]), Path(config["outputs_dir"]))
    with user_errors("sampler"):
        sampler: Sampler = instantiate(config["sampler"], _convert_="all")
    device = choose_device(config["device"])
    denoiser, step = choose_denoiser(run, config["weights"])
    form = clip_format(**run.config["data"])
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    directory = Path(config["output"] or run.directory / "samples" / name)
    if (directory / "clips").exists():
        raise UserError(f"{directory} already holds samples; choose another output")
    with user_errors("output"):
        (directory / "clips").mkdir(parents=True)
    film = ReverseFilm()
    start = time.perf_counter()
    parts = []
    with user_errors("sampler"):
        for first in range(0, config["num_samples"], config["batch_size"]):
            numbers = range(first, min(first + config["batch_size"], config["num_samples"]))
            parts.append(
                sampler.sample(
                    denoiser.to(device),
                    (len(numbers), form.channels, form.num_frames, form.height, form.width),
                    generator=per_sample_generators(config["seed"], numbers),
                    device=device,
                    callback=None if first else film.record,
                ).cpu()
            )
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


def choose_denoiser(run: Run, weights: str | float) -> tuple[Denoiser, int]:
    """With these weights, by name or by the length of an average to be rebuilt; and their step."""
    if isinstance(weights, float):
        return rebuild_average(run, weights)
    denoisers, step = load_denoisers(run)
    if weights not in denoisers:
        raise UserError(f"{run.checkpoint} holds no weights {weights}, but {', '.join(denoisers)}")
    return denoisers[weights], step
