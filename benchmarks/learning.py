"""How well UNet3D learns: validation loss by log-SNR after equally many steps.

    python -m benchmarks.learning             # beside video-diffusion-pytorch's Unet3D
    python -m benchmarks.learning --options   # unet3d_tiny beside other choices of its options
    python -m benchmarks.learning --steps 100 --seeds 1 data.batch_size=4   # any value of the run

Each training is the default run (moving digits, cosine noise, velocity, AdamW) with another
network: the same clips, times and noise in the same order, raw weights, fixed validation pairs. The
peer's architecture is ours here, layer for layer, with its number of parameters within 2 %; it is
told the step whose log-SNR is nearest, which is what it was made for. Bins of log-SNR begin with
the noisiest; given are mean and standard deviation over the seeds. Some 30 minutes of one thread,
with --options 20.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.levels import measure_levels
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.run.commands.train import seed_everything
from ddpm_lightning.run.config.build import build_data
from ddpm_lightning.run.config.check import resolved
from ddpm_lightning.run.fitting.allocator import keep_freed
from ddpm_lightning.run.fitting.fit import build_module, quiet
from ddpm_lightning.training.datamodule import ClipDataModule

CONF = Path(__file__).parents[1] / "conf"
WIDTH, MULTIPLIERS, HEADS, HEAD_WIDTH = 16, [1, 2, 4], 4, 32
ERROR = "val/error"
MILLISECONDS = "ms a step"  # of the processor, data included
OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm": "group"},
    {"norm": "magnitude"},
    {"resampling": "strided"},
    {"resampling": "area"},
    {"zero_exits": False},
    {"spatial_attention": ["none", "windowed", "full"]},
    {"spatial_attention": ["none", "linear", "full"]},
    {"spatial_attention": ["linear", "full", "full"]},
    {"temporal_mixing": "separable"},
    {"temporal_mixing": "full"},
    {"patch": 1},
    {"wide_ends": True},
    {"image_share": 0.25},
]

Make = Callable[[DictConfig], nn.Module]
Losses = dict[str, float]  # by bin, and of all; beside them the time of a step


class Stepped(nn.Module):
    """The peer's network as a Denoiser calls it: log-SNR becomes the nearest step, from 0."""

    levels: Tensor

    def __init__(self, network: nn.Module, process: StandardProcess) -> None:
        super().__init__()
        self.network = network
        levels = process.log_snr(torch.arange(1, process.num_steps + 1))
        self.register_buffer("levels", levels.float())

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        step = (self.levels - log_snr[:, None]).abs().argmin(dim=1)
        return self.network(x, step)


def peer(config: DictConfig) -> nn.Module:
    from video_diffusion_pytorch import Unet3D

    network = Unet3D(
        dim=WIDTH,
        dim_mults=tuple(MULTIPLIERS),
        channels=config.data.channels,
        attn_heads=HEADS,
        attn_dim_head=HEAD_WIDTH,
    )
    return Stepped(network, StandardProcess(instantiate(config.noise)))


def ours(config: DictConfig) -> nn.Module:
    levels = len(MULTIPLIERS)
    return UNet3D(
        channels=config.data.channels,
        base_width=WIDTH,
        width_multipliers=MULTIPLIERS,
        patch=1,
        num_blocks=[2] * levels,
        spatial_attention=["linear"] * levels,  # and full in the middle
        temporal_attention=[True] * levels,
        head_width=HEAD_WIDTH,
        num_heads=[HEADS] * levels,
        resampling="strided",
        wide_ends=True,
    )


def configured(config: DictConfig, **options: object) -> nn.Module:
    return instantiate(config.network, **options, _convert_="all")


def losses(make: Make, seed: int, steps: int, words: list[str]) -> Losses:
    """After `steps` training steps on batches, times and noise that the seed determines."""
    config = compose("config", [f"seed={seed}", f"trainer.max_steps={steps}", *words])
    resolved_config = resolved(config)
    data = build_data(resolved_config["data"])
    seed_everything(seed)
    process, objective = (
        instantiate(resolved_config["model"]["denoiser"][key]) for key in ("process", "objective")
    )
    module = build_module(resolved_config["model"], Denoiser(make(config), process, objective))
    data.load()
    module.denoiser.statistics.measure(data.examples(1024))
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        max_steps=steps,
        gradient_clip_val=config.trainer.gradient_clip_val,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.process_time()
    trainer.fit(module, datamodule=ClipDataModule(data))
    taken = time.process_time() - start
    device = trainer.strategy.root_device
    denoiser = module.denoiser.to(device).eval()
    errors = measure_levels(denoiser, data.val_loader(), len(data.val_set), device)
    return {ERROR: errors.mean(), MILLISECONDS: 1000 * taken / steps}


def row(name: str, values: list[list[float]]) -> str:
    """A line of the table from each column's values, one a seed."""
    cells = (f"{mean(v):.4g}" + (f" ± {stdev(v):.2g}" if len(v) > 1 else "") for v in values)
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", action="store_true")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    keep_freed()
    quiet()
    makes: dict[str, Make] = {"peer": peer, "ours": ours}
    if arguments.options:
        makes = {
            ", ".join(f"{k}={v}" for k, v in o.items()) or "unet3d_tiny": partial(configured, **o)
            for o in OPTIONS
        }
    found: dict[str, list[Losses]] = {name: [] for name in makes}
    columns = [ERROR, MILLISECONDS]
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for seed in range(arguments.seeds):
            for name, make in makes.items():
                found[name].append(losses(make, seed, arguments.steps, words))
                values = [[value] for value in found[name][-1].values()]
                print(row(f"{name}, seed {seed}", values), flush=True)
    first, *others = found
    for name, runs in found.items():
        print(row(f"{name}", [[run[bin] for run in runs] for bin in runs[0]]))
    for name in others:
        pairs = list(zip(found[name], found[first], strict=True))
        ratios = [[a[bin] / b[bin] for a, b in pairs] for bin in pairs[0][0]]
        print(row(f"{name} / {first}", ratios))


if __name__ == "__main__":
    main()
