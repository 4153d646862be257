"""One loss, whichever way: by kernels, by definition, checkpointed; compiled, see
tests/training/test_compilation.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.networks import kernels
from ddpm_lightning.networks.unet3d import UNet3D
from tests.networks.shared import assert_same, clips, loss_and_gradients, preset, unet
from tests.problems import networks

pytestmark = pytest.mark.slow  # as a whole: gradients of networks, by hand and not


def by_definition(model: nn.Module, x: Tensor) -> tuple[float, list[Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "by_definition", lambda: True)
        return loss_and_gradients(model, x)


@pytest.mark.parametrize(
    "options", [{"norm": "group"}, {"norm": "magnitude"}, {"temporal_mixing": "full"}], ids=str
)
def test_every_option_gives_one_loss_and_the_same_gradients(options: dict[str, str]) -> None:
    model, x = unet(wide_ends=True, **options), clips()
    assert_same(loss_and_gradients(model, x), by_definition(model, x))


@pytest.mark.parametrize("name", networks())
def test_every_preset_gives_one_loss_and_the_same_gradients(name: str) -> None:
    model, x = preset(name), clips(height=16, width=32)
    expected = loss_and_gradients(model, x)
    assert_same(expected, loss_and_gradients(model, x))
    assert_same(expected, by_definition(model, x))
    levels = len(model.down)
    assert_same(expected, loss_and_gradients(preset(name, checkpointing=[True] * levels), x))


def test_checkpointing_changes_nothing() -> None:
    x = clips(num_frames=3)
    expected = loss_and_gradients(unet(), x)
    for checkpointing in ([True, False], [False, True], [True, True]):
        assert_same(expected, loss_and_gradients(unet(checkpointing=checkpointing), x))


def saved_bytes(model: UNet3D, x: Tensor) -> int:
    storages: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        output = model(x, torch.zeros(len(x)))
        del output
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for pointer, size in storages.items() if pointer not in own)


def test_checkpointing_saves_memory() -> None:
    x = clips(num_frames=8, height=16, width=16)
    assert saved_bytes(unet(checkpointing=[True, True]), x) < 0.3 * saved_bytes(unet(), x)


@pytest.mark.parametrize(
    "options",
    [{}, {"checkpointing": [True, True]}, {"norm": "group"}, {"norm": "magnitude"}],
    ids=str,
)
def test_eager_half_precision_casts_weights_and_puts_them_back(options: dict[str, Any]) -> None:
    """The gradient is towards that of float32, and in it."""
    model, x = unet(wide_ends=True, token_width=6, **options), clips()
    tokens = {"tokens": torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(3))}
    own = dict(model.named_parameters())
    _, exact = loss_and_gradients(model, x, **tokens)
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients = loss_and_gradients(model, x, **tokens)
    assert all(p is own[name] for name, p in model.named_parameters())
    assert {g.dtype for g in gradients} == {torch.float32}
    assert [g.shape for g in gradients] == [g.shape for g in exact]
    norms = [g.norm() for g in exact]
    largest = max(norms)
    errors = [
        float((half - g).norm() / norm)
        for g, half, norm in zip(exact, gradients, norms, strict=True)
        if norm > 1e-3 * largest  # a gain before a norm has none
    ]
    assert max(errors) < 0.1  # measured: 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_trains_towards_the_same_gradient(dtype: torch.dtype) -> None:
    """Activations of 8 or 11 bits through some twenty layers; the output is float32."""
    model, x = unet(), clips()
    _, exact = loss_and_gradients(model, x)
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        output = model(x, torch.tensor([-3.0, 5.0]))
    assert output.dtype == torch.float32
    (output - x).square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.dtype == torch.float32 for g in gradients)
    one, other = (torch.cat([g.flatten() for g in gs]) for gs in (exact, gradients))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
