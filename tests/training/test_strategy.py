"""DDP: a static graph, gradients as views of buckets, recomputation and a compiler together."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed import (  # type: ignore[attr-defined]
    HashStore,
    destroy_process_group,
    init_process_group,
)
from torch.nn.parallel import DistributedDataParallel

from ddpm_lightning.training.compilation import compile_in_place
from tests.networks.shared import clips, unet


@pytest.fixture
def group() -> Iterator[None]:
    torch.compiler.reset()
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


class Around(nn.Module):
    """A module around the network, as Lightning's is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x, torch.zeros(len(x)))
        return output


@pytest.mark.long
@pytest.mark.usefixtures("group")
def test_compiled_steps_with_recomputation_have_the_gradients_of_eager_ones() -> None:
    """Of three buckets: the graph is cut into as many and one more, once."""
    network, x = unet(num_blocks=[1, 1], checkpointing=True, base_width=48), clips()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    expected = gradients(Around(copy.deepcopy(network)), x, weights)
    counter = CompileCounterWithBackend("aot_eager")
    assert compile_in_place(network, torch.device("cpu"), backend=counter, fullgraph=True)
    options = {"static_graph": True, "gradient_as_bucket_view": True, "bucket_cap_mb": 1}
    wrapped = DistributedDataParallel(Around(network), **options)  # type: ignore[arg-type]
    for _ in range(3):
        actual = gradients(wrapped, x, weights)
        assert torch.linalg.vector_norm(actual - expected) < 1e-5 * expected.norm()
        assert counter.frame_count == 1 + 4  # the trial's is the first


def gradients(module: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    module.zero_grad()
    (weights * module(x)).sum().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
