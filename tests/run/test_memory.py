"""The memory plan: what a step really keeps, counted without computing it."""

import pytest
import torch

from ddpm_lightning.run import memory
from ddpm_lightning.run.errors import UserError
from ddpm_lightning.run.memory import MemoryPlan, check_memory, plan
from tests.training.test_callbacks import module


@pytest.mark.parametrize("shape", [(2, 1, 4, 8, 8), (4, 1, 8, 16, 16)])
def test_activations_are_what_a_pass_keeps(shape: tuple[int, ...]) -> None:
    """Within a fifth: attention may keep other tensors on the meta device than on a real one."""
    model = module()
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.denoiser.network(torch.zeros(shape), torch.zeros(shape[0]))
    num_bytes = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in own)
    found = plan(model, shape, num_averages=2)
    assert found.activations == pytest.approx(num_bytes, rel=0.2)
    size = 4 * sum(p.numel() for p in model.parameters())
    assert found[:3] == (2 * size, 2 * size, 2 * size)


def test_too_little_is_refused_with_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte = 2**30
    monkeypatch.setattr(memory, "available_bytes", lambda accelerator: 3 * gigabyte)
    check_memory(MemoryPlan(gigabyte, gigabyte, 0, gigabyte), "cpu")
    with pytest.raises(UserError, match=r"about 3\.50 GiB of memory, 3\.00 GiB are free .*weights"):
        check_memory(MemoryPlan(gigabyte, gigabyte, gigabyte // 2, gigabyte), "cpu")


def test_free_memory_of_this_machine_is_read() -> None:
    assert 2**26 < memory.available_bytes("cpu") < 2**50
