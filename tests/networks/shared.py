"""Small networks of any kind, as after a little training, and how their losses are compared."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.networks.unet3d import UNet3D
from tests.problems import build


def unet(**options: Any) -> UNet3D:
    """Two levels, every kind of layer unless told otherwise; no weight is zero; seed 0."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "channels": 2,
        "base_width": 16,
        "width_multipliers": [1, 2],
        "patch": 1,
        "num_blocks": [1, 2],
        "spatial_attention": ["linear", "full"],
        "temporal_attention": [True, True],
        "head_width": 8,
    }
    return shaken(UNet3D(**(settings | options)))


def preset(name: str, **options: Any) -> UNet3D:
    """conf/network/NAME, narrow, for clips of 2 channels; no weight is zero; seed 0."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 2, "base_width": 16, "head_width": 8}
    return shaken(build("network", name, **(small | options)))


def shaken(model: UNet3D) -> UNet3D:
    """Weights moved a little from where they start; seed 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def unreached(model: nn.Module) -> list[str]:
    """Names of the parameters without a gradient, or with one of zero."""
    return [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]


def clips(batch_size: int = 2, num_frames: int = 5, height: int = 8, width: int = 12) -> Tensor:
    """(B, 2, F, H, W); seed 2."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch_size, 2, num_frames, height, width, generator=generator)


def loss_and_gradients(
    model: nn.Module, x: Tensor, **conditions: Tensor
) -> tuple[float, list[Tensor]]:
    """A training step's, for two clips."""
    model.zero_grad()
    loss = (model(x, torch.tensor([-3.0, 5.0]), **conditions) - x).square().mean()
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_same(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> None:
    """Losses to 1e-6, gradients to 1e-4 of their length."""
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    for a, b in zip(one[1], other[1], strict=True):
        assert (a - b).norm() < 1e-4 * b.norm() + 1e-7  # float32, sums of thousands of terms
