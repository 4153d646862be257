"""Every operation of kernels/ is what its definition says, in values and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.networks.kernels import eager, plain

# Name: shapes of its arguments. Sizes differ from one another, so that no two axes are confused.
OPERATIONS: dict[str, list[tuple[int, ...]]] = {
    "scaled_silu": [(2, 3, 4, 5, 6), (2, 1, 1, 1, 6), (2, 1, 1, 1, 6)],
    "stacked": [(2, 4, 5)] * 3,
    "turned": [(2, 5, 6, 3, 4)],
    "attention": [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)],
}


def tensors(name: str) -> list[Tensor]:
    """Arguments in float64; seed 0."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in OPERATIONS[name]
    ]


def results(operation: Callable[..., Any], arguments: list[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a sum of their cubes."""
    output = operation(*arguments)
    outputs = [output] if isinstance(output, Tensor) else list(output)
    loss = torch.stack([each.pow(3).sum() for each in outputs]).sum()
    return [*outputs, *torch.autograd.grad(loss, arguments)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kernel_gives_the_values_and_gradients_of_its_definition(name: str) -> None:
    """In float64, to the round-off of sums of a hundred terms; the table of angles is float32."""
    arguments = tensors(name)
    found = results(getattr(eager, name), arguments)
    expected = results(getattr(plain, name), arguments)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        assert a.stride() == b.stride() or name != "scaled_silu"


@pytest.mark.parametrize("name", ["scaled_silu", "stacked", "turned"])
def test_gradients_by_hand_are_those_of_differences(name: str) -> None:
    assert torch.autograd.gradcheck(getattr(eager, name), tensors(name))


def test_attention_of_more_heads_than_a_grid_takes_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = tensors("attention")
    expected = results(eager.attention, arguments)
    monkeypatch.setattr(eager, "GRID", 2)
    for a, b in zip(results(eager.attention, arguments), expected, strict=True):
        torch.testing.assert_close(a, b)
