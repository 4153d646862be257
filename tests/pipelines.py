"""Pipeline folders of diffusers: a small UNet2DModel with random weights, built as that of
google/ddpm-ema-celebahq-256 is.
"""

from pathlib import Path
from typing import Any

import torch

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
SCHEDULER: dict[str, Any] = {"num_train_timesteps": 50, "beta_end": 0.36}  # log-SNR to -10.3


def build_pipeline(seed: int = 0, **scheduler: Any) -> Any:
    """Return a DDPMPipeline with options of its DDPMScheduler."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DModel(**UNET).eval()
    return DDPMPipeline(unet, DDPMScheduler(**{**SCHEDULER, **scheduler}))


def save_pipeline(folder: Path, **scheduler: Any) -> Path:
    """Write one, with safetensors."""
    build_pipeline(**scheduler).save_pretrained(folder)
    return folder
