"""The memory plan beside what a process of its own really takes."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm_lightning.networks.memory import GIB, RESERVE, plan, propose
from tests.networks.shared import unet
from tests.problems import build

ROOT = Path(__file__).parents[2]
MEASURE = """
import copy, re, sys, torch
from ddpm_lightning.networks.memory import keep_freed, plan
from tests.problems import build

def peak():
    # Not ru_maxrss, which begins at what the parent of the process had.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

keep_freed()
torch.set_num_threads(1)
name, frames, size, batch, dtype, checkpointing = sys.argv[1:]
shape = (int(batch), 1, int(frames), int(size), int(size))
dtype, again = getattr(torch, dtype), [True] * 3 * (checkpointing == "True")
make = lambda: build("network", name, channels=1, checkpointing=again or None)
with torch.device("meta"):  # what is imported now is not counted, what is built would be used again
    make()
a = torch.randn(64, 64, requires_grad=True)
(a @ a).sum().backward()
before = peak()
network = make()
average = copy.deepcopy(network)
torch._foreach_mul_([p.data for p in average.parameters()], 1.0)
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
x = torch.randn(shape)
for _ in range(4):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = network(x, torch.ones(len(x)))
    (output - x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
took = peak() - before
print(plan(network, shape, "cpu", dtype).total / took)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("unet3d_tiny", 8, 16, 8, "float32", False),
        ("unet3d_tiny", 16, 64, 4, "float32", False),
        ("unet3d_tiny", 16, 64, 4, "bfloat16", False),
        ("unet3d_tiny", 16, 64, 4, "float32", True),
        ("unet3d_small", 16, 64, 2, "float32", False),
        ("unet3d_base", 16, 64, 1, "float32", False),
    ],
    ids=str,
)
def test_plan_is_within_15_percent_of_the_peak(words: tuple[object, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert float(result.stdout.split()[-1]) == pytest.approx(1, abs=0.15)


def test_weights_optimizer_and_average_are_counted_exactly() -> None:
    model = unet()
    size = 4 * sum(p.numel() for p in model.parameters())
    found = plan(model, (1, 2, 4, 8, 8), "cpu")
    assert (found.weights, found.optimizer, found.averages) == (size, 2 * size, size)
    assert plan(model, (1, 2, 4, 8, 8), "cpu", averages=3).averages == 3 * size


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing_and_precision() -> None:
    one, two = (plan(unet(), (b, 2, 8, 32, 32), "cpu").activations for b in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.01)
    saving = plan(unet(checkpointing=[True, True]), (2, 2, 8, 32, 32), "cpu")
    assert saving.activations < 0.6 * two
    half = plan(unet(), (2, 2, 8, 32, 32), "cpu", torch.bfloat16).activations
    assert half == pytest.approx(two / 2, rel=0.1)  # norms' scales stay float32


def test_what_fits_is_proposed_and_takes_no_more_than_its_share() -> None:
    model, shape = unet(), (8, 2, 8, 32, 32)
    needed = plan(model, shape, "cpu").total
    whole = propose(model, shape, "cpu", int(needed / RESERVE) + 1)
    assert (whole.batch_size, whole.accumulate, whole.checkpointing) == (8, 1, False)
    quarter = plan(model, (2, *shape[1:]), "cpu").total
    part = propose(model, shape, "cpu", int(quarter / RESERVE) + 1)
    assert (part.batch_size, part.accumulate, part.checkpointing) == (2, 4, False)
    assert part.plan.total == quarter


def test_checkpointing_is_proposed_where_one_clip_does_not_fit_without() -> None:
    model, shape = unet(num_blocks=[3, 3]), (1, 2, 8, 128, 128)
    plain = plan(model, shape, "cpu").total
    assert propose(model, shape, "cpu", int(plain / RESERVE) - 2**20).checkpointing


def test_a_preset_larger_than_the_device_is_refused_in_one_line() -> None:
    model = build("network", "unet3d_tiny", channels=1)
    with pytest.raises(ValueError, match=r"even with checkpointing, and 0.0 GiB are there") as e:
        propose(model, (8, 1, 8, 16, 16), "cpu", GIB // 100)
    assert str(e.value).endswith("; choose a smaller network=")
    assert "\n" not in str(e.value)


def test_a_clip_larger_than_the_device_is_refused_with_the_nearest_that_fits() -> None:
    model, shape = unet(num_blocks=[3, 3], checkpointing=[True, True]), (1, 2, 8, 128, 128)
    available = int(plan(model, shape, "cpu").total * 0.6 / RESERVE)
    words = r"with it data.num_frames=(\d) or data.size=\[64,64\] fits$"
    with pytest.raises(ValueError, match=words) as error:
        propose(model, shape, "cpu", available)
    (frames,) = map(int, re.findall(words, str(error.value)))
    needed = [
        plan(model, (1, 2, *clip), "cpu").total
        for clip in ((frames, 128, 128), (8, 64, 64), (frames + 1, 128, 128))
    ]
    assert [size <= RESERVE * available for size in needed] == [True, True, False]


FAULTS = """
import resource, sys, torch
from ddpm_lightning.networks.memory import keep_freed
from tests.networks.shared import unet

if sys.argv[1] == "kept":
    keep_freed()
model, x = unet(), torch.randn(2, 2, 8, 32, 32)
for step in range(8):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(x, torch.zeros(2)).square().mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of GNU's C library alone")
def test_steps_find_the_memory_that_was_freed() -> None:
    """Pages that the system has to give, in four steps."""
    command = [sys.executable, "-c", FAULTS]
    kept, returned = (
        int(subprocess.run([*command, word], capture_output=True, check=True, cwd=ROOT).stdout)
        for word in ("kept", "returned")
    )
    assert kept < returned / 4
