"""What GPUs ask of the presets' shapes, counted on tensors without values."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ddpm_lightning.networks.attention import TemporalAttention
from ddpm_lightning.networks.unet3d import UNet3D
from tests.problems import build, options

ENDS = {"entry.weight", "exit.conv.weight", "embedding.first.weight"}  # pixels, frequencies


class AttentionCalls(TorchFunctionMode):
    """Records the shapes of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.shapes.append(args[0].shape)
        return func(*args, **(kwargs or {}))


def without_values(name: str) -> UNet3D:
    with torch.device("meta"):
        network: UNet3D = build("network", name, channels=3)
    return network


@pytest.mark.parametrize("name", sorted({*options("network")} - {"unet3d_tiny"}))
def test_widths_are_multiples_of_64(name: str) -> None:
    """But for the ends, and tiny, which is for CPUs; heads, of 8 as fused attention wants them."""
    network = without_values(name)
    weights = {n: p.shape[:2] for n, p in network.named_parameters() if p.dim() > 1}
    assert {n for n, shape in weights.items() if any(width % 64 for width in shape)} == ENDS
    layers = [m for m in network.modules() if isinstance(m, TemporalAttention)]
    assert not any(layer.heads[1] % 8 for layer in layers)


@pytest.mark.parametrize("name", options("network"))
def test_each_attention_along_time_is_one_call_for_all_pixels(name: str) -> None:
    """Of 8 clips, 16 frames of 64x128, which at no level have 16 positions."""
    network, x = without_values(name), torch.empty(8, 3, 16, 64, 128, device="meta")
    with AttentionCalls() as calls:
        network(x, torch.empty(8, device="meta"))
    along_time = [shape for shape in calls.shapes if shape[2] == 16]
    assert len(along_time) == sum(isinstance(m, TemporalAttention) for m in network.modules())
    # A head of a pixel takes the place of a head; kernels take 65,535 of them.
    pixels = {(32 >> level) * (64 >> level) for level in range(len(network.down))}
    heads = {m.heads[0] for m in network.modules() if isinstance(m, TemporalAttention)}
    assert {shape[0] for shape in along_time} == {8}
    assert {shape[1] for shape in along_time} <= {n * h for n in pixels for h in heads}
