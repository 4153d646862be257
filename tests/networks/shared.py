"""A small network of any kind, as after a little training."""

from typing import Any

import torch
from torch import Tensor

from ddpm_lightning.networks.unet3d import UNet3D


def unet(**options: Any) -> UNet3D:
    """Two levels, every kind of layer unless told otherwise; no weight is zero; seed 0."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "channels": 2,
        "outputs": 1,
        "base_width": 16,
        "width_multipliers": [1, 2],
        "patch": 1,
        "num_blocks": [1, 2],
        "spatial_attention": ["linear", "full"],
        "temporal_attention": [True, True],
        "head_width": 8,
    }
    return shaken(UNet3D(**(settings | options)))


def shaken(model: UNet3D) -> UNet3D:
    """Weights moved a little from where they start; seed 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def clips(batch_size: int = 2, num_frames: int = 5, height: int = 8, width: int = 12) -> Tensor:
    """(B, 2, F, H, W); seed 2."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch_size, 2, num_frames, height, width, generator=generator)
