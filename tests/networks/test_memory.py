"""The measured memory plan: its extrapolation, its parts, and that measuring changes nothing."""

import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.networks.memory import (
    RESERVE,
    MemoryPlan,
    cpu_peak,
    fastest_batch,
    largest_batch,
    measure,
    paying_batch,
    training_step,
)
from tests.networks.shared import unet

pytestmark = pytest.mark.slow  # as a whole: steps are measured

CPU = torch.device("cpu")
CLIP = (2, 4, 8, 8)
SMALL: dict[str, Any] = {  # one level: what is measured is the step, not the network
    "width_multipliers": [1],
    "num_blocks": [1],
    "spatial_attention": ["full"],
    "temporal_attention": [True],
}
SETTINGS: dict[str, Any] = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "checkpointing": {"checkpointing": [True]},
}


class Product(nn.Module):
    """x -> weight x, whose gradient needs x alone; draws a number and counts its calls."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.calls += 1
        return torch.rand(()) * (x * self.weight)


def test_a_batch_is_doubled_while_a_tenth_is_gained_and_memory_lasts() -> None:
    """A step of a + b n seconds: twice the clips gain a / (a + 2 b n), a tenth at n = 4.5 a / b.

    With a / b = 10 that is 45, so that 32 is doubled and 64 is not.
    """
    asked: list[int] = []

    def seconds(num_clips: int) -> float:
        asked.append(num_clips)
        if num_clips > memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return 10 + num_clips

    memory = 1024
    assert paying_batch(seconds, most=1024) == 64
    assert asked == [1, 2, 4, 8, 16, 32, 64, 128]
    assert paying_batch(seconds, most=16) == 16
    memory = 8
    assert paying_batch(seconds, most=1024) == 8
    assert paying_batch(float, most=64) == 1


@pytest.mark.parametrize(
    "name", ["float32", "checkpointing", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_extrapolation_equals_the_measured_peak_at_four_and_eight_clips(name: str) -> None:
    options = dict(SETTINGS[name])
    dtype = options.pop("dtype", torch.float32)
    model = unet(**SMALL, **options)
    plan = measure(model, CLIP, CPU, dtype)
    step = training_step(model, CLIP, CPU, dtype, {})
    for num_clips in (4, 8):
        peak = cpu_peak(partial(step, num_clips), limit=sys.maxsize)
        assert plan.total(num_clips) - plan.fixed == pytest.approx(peak, rel=0.05)


def test_the_peak_of_a_known_step_is_that_of_its_tensors() -> None:
    """x, weight x and the output; then at most three at once for the gradient of the square."""
    plan = measure(Product(), (1, 4, 64, 64), CPU)
    assert plan.two - plan.one == pytest.approx(plan.one, rel=0.01)
    assert 5 <= plan.one / (4 * 4 * 64 * 64) < 6.01


def test_weights_gradients_optimizer_and_averages_are_counted_exactly() -> None:
    """Frozen weights have neither gradients nor moments."""
    model = unet()
    size = 4 * sum(p.numel() for p in model.parameters())
    plan = measure(model, CLIP, CPU, averages=3)
    assert plan.fixed == 7 * size
    assert plan.total(5) == 7 * size + plan.one + 4 * (plan.two - plan.one)
    frozen = sum(p.nbytes for p in model.down.requires_grad_(False).parameters())
    assert measure(model, CLIP, CPU, averages=0).fixed == size + 3 * (size - frozen)


@pytest.mark.long
def test_recomputation_and_bfloat16_lower_the_plan() -> None:
    plain = measure(unet(), CLIP, CPU)
    assert measure(unet(checkpointing=[True, True]), CLIP, CPU).one < 0.7 * plain.one
    half = measure(unet(), CLIP, CPU, torch.bfloat16)
    assert half.two - half.one < 0.8 * (plain.two - plain.one)
    assert half.fixed == plain.fixed


def test_conditions_are_counted() -> None:
    """For the gradient of each product with tokens: what is normalised, queries, the result."""
    clip, told = (2, 8, 16, 16), {"vectors": torch.zeros(3), "tokens": torch.zeros(4, 6)}
    fine, coarse = 8 * 16 * 16, 8 * 8 * 8  # positions
    # of five stages, down, middle and up, with their widths and those of their heads
    stages = [(fine, 16, 16), *[(coarse, 32, 32)] * 2, (coarse, 16, 32), (fine, 16, 16)]
    saved = 4 * sum(rows * (width + 2 * inner) for rows, width, inner in stages)
    plain = measure(unet(), clip, CPU)
    conditioned = measure(unet(vector_width=3, token_width=6), clip, CPU, conditions=told)
    more = (conditioned.two - conditioned.one) - (plain.two - plain.one)
    assert saved < more < 1.5 * saved


def test_measuring_changes_neither_network_nor_random_numbers() -> None:
    networks: tuple[nn.Module, ...] = (unet(**SMALL, image_share=0.5).eval(), Product())
    for network in networks:
        state = {name: value.clone() for name, value in network.state_dict().items()}
        modes = [module.training for module in network.modules()]
        generator = torch.get_rng_state()
        plan = measure(network, CLIP, CPU)
        assert measure(network, CLIP, CPU) == plan
        fastest_batch(network, CLIP, CPU, torch.float32, most=2)
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert [module.training for module in network.modules()] == modes


@pytest.mark.parametrize(
    "checkpointing", [[False], pytest.param([True], marks=pytest.mark.slow)], ids=str
)
def test_a_step_that_does_not_fit_is_not_finished(checkpointing: list[bool]) -> None:
    """What is available is enough for two clips, lacks 1 KiB for two, or for one."""
    model = unet(**SMALL, checkpointing=checkpointing)
    plan = measure(model, CLIP, CPU)
    for needed, fits in ((plan.total(2), 2), (plan.total(2) - 1024, 1), (plan.total(1) - 1024, 0)):
        available = int(needed / RESERVE) + 1
        tight = measure(model, CLIP, CPU, available=available)
        assert largest_batch(tight, available, most=2) == fits
        assert tight.one <= plan.one
        assert tight.two <= plan.two
    assert largest_batch(measure(model, CLIP, CPU, available=1), 1, most=2) == 0


def test_the_largest_batch_is_halved_until_it_fits() -> None:
    plan = MemoryPlan(fixed=50, one=20, two=30)
    assert [plan.total(n) for n in (1, 2, 12)] == [70, 80, 180]
    available = 200  # of which 180 may be taken
    assert [largest_batch(plan, available, most) for most in (12, 13, 24, 64)] == [12, 6, 12, 8]
    assert largest_batch(plan, 70, most=64) == 0


def test_clips_that_a_network_refuses_are_refused() -> None:
    with pytest.raises(ValueError, match="frame height must be divisible by the network's stride"):
        measure(unet(), (2, 4, 7, 8), CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_extrapolation_equals_the_allocators_peak() -> None:
    """Within 5 %, at a size where the allocator's rounding to 512 bytes does not count."""
    device, clip = torch.device("cuda", torch.cuda.current_device()), (2, 8, 32, 32)
    model = unet()
    plan = measure(model, clip, device, torch.bfloat16)
    step = training_step(model, clip, device, torch.bfloat16, {})
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step(8)
    peak = torch.cuda.max_memory_allocated(device) - before
    assert plan.total(8) - plan.fixed == pytest.approx(peak, rel=0.05)
