"""Compiling: in place, one whole graph, one loss, once for a run; machines without a compiler."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from ddpm_lightning.averages import ConstantDecay
from ddpm_lightning.data.clip import to_float
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.training.callbacks.ema import EMA
from ddpm_lightning.training.compilation import check_graphs, compile_in_place, mode_of
from tests.networks.shared import assert_same, clips, loss_and_gradients, preset, unet
from tests.problems import build, options, process_under

long = pytest.mark.long  # compiling takes half a minute
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)
CPU = torch.device("cpu")
WITHOUT = """
import logging, torch
from ddpm_lightning.training.compilation import check_graphs, compile_in_place, mode_of
logging.basicConfig(format="%(message)s")
network = torch.nn.Linear(2, 2)
print(compile_in_place(network, torch.device("cpu")), network(torch.ones(2)).isfinite().all())
"""

TWICE = """
from ddpm_lightning.run.config.torch_environment import prepare_torch
prepare_torch()
import torch
from torch._dynamo.utils import counters
from ddpm_lightning.training.compilation import check_graphs, compile_in_place, mode_of
network = torch.nn.Linear(2, 2)
compile_in_place(network, torch.device("cpu"))
network(torch.ones(3, 2)).sum().backward()
caches = counters["aot_autograd"], counters["inductor"]
print(sum(n for c in caches for name, n in c.items() if name.endswith("cache_miss")))
print(sum(n for c in caches for name, n in c.items() if name.endswith("cache_hit")))
"""


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()


@long
def test_without_a_compiler_networks_stay_as_they_are_and_one_line_says_so(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.split() == ["False", "tensor(True)"]
    (line,) = result.stderr.splitlines()
    assert line.startswith("torch.compile does not work here (InvalidCxxCompiler: No working C++")
    assert line.endswith("going on without")


@long
@pytest.mark.parametrize("name", options("network"))
def test_every_preset_is_one_graph_that_gives_the_same_loss(name: str) -> None:
    """Without a code generator, which is what takes minutes."""
    model, x = preset(name), clips(height=16, width=32)
    names = list(model.state_dict())
    expected = loss_and_gradients(model, x)
    model.compile(backend="eager", fullgraph=True)
    assert_same(loss_and_gradients(model, x), expected)
    assert list(model.state_dict()) == names


@long
def test_checkpointing_and_conditions_are_in_the_graph() -> None:
    """And in that of the gradient."""
    model, x = unet(num_blocks=[1, 1], checkpointing=[True, False], token_width=6), clips()
    told = {"tokens": torch.randn(2, 4, 6)}
    expected = loss_and_gradients(model, x, **told)
    model.compile(backend="aot_eager", fullgraph=True)
    assert_same(loss_and_gradients(model, x, **told), expected)


def small() -> UNet3D:
    return unet(
        channels=3,
        width_multipliers=[1],
        num_blocks=[1],
        spatial_attention=["full"],
        temporal_attention=[True],
    )


@long
def test_a_run_compiles_its_training_step_once() -> None:
    """As one graph; other batch sizes, averages, samplers and the weights of a checkpoint compile
    nothing, nor does a network that only predicts.
    """
    network = small()
    process, velocity = process_under(StandardProcess, "cosine"), build("objective", "velocity")
    raw, average = (Denoiser(n, process, velocity) for n in (network, copy.deepcopy(network)))
    counter = CompileCounterWithBackend("aot_eager")
    assert compile_in_place(network, CPU, backend=counter, fullgraph=True)
    assert counter.frame_count == 1  # the trial's
    optimizer = torch.optim.AdamW(network.parameters())
    ema = EMA({"ema": ConstantDecay(0.9)}, directory="")

    def loss(denoiser: Denoiser, batch_size: int) -> torch.Tensor:
        x_0 = to_float(torch.randint(0, 256, (batch_size, 4, 8, 8, 3), dtype=torch.uint8))
        t = torch.randint(1, 1000, (batch_size,))
        return denoiser.loss(x_0, denoiser.process.level(t), torch.randn(x_0.shape)).mean()

    def train(step: int) -> None:
        loss(raw.train(), 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(average, raw, step)

    train(1)
    train(2)
    for denoiser in (raw.eval(), average.eval()):
        with torch.no_grad():
            for batch_size in (4, 3, 1):
                loss(denoiser, batch_size)
        for name in ("heun", "ancestral", "dpmpp_2m"):
            sampler = build("sampler", name, num_evaluations=3)
            sampler.sample(denoiser, (2, 3, 4, 8, 8))
    network.load_state_dict(small().state_dict())
    train(3)
    assert counter.frame_count == 2
    assert not counters["graph_break"]


@needs_compiler
@long
def test_networks_are_compiled_in_place_and_keep_their_names() -> None:
    network, x = nn.Linear(2, 2), torch.ones(3, 2)
    names, expected = list(network.state_dict()), network(x)
    assert compile_in_place(network, CPU)
    torch.testing.assert_close(network(x), expected)
    assert "forward" in vars(network)
    assert list(network.state_dict()) == names


@needs_compiler
@long
def test_a_second_start_finds_what_the_first_one_compiled(tmp_path: Path) -> None:
    """In data/cache, of the trial and of the network, forward and backward."""

    def start() -> tuple[int, int]:
        own = {"PYTHONPATH": str(Path(__file__).parents[2])}
        hidden = ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_FORCE_DISABLE_CACHES")
        environment = {k: v for k, v in os.environ.items() if k not in hidden} | own
        command = [sys.executable, "-c", TWICE]
        output = subprocess.check_output(command, env=environment, cwd=tmp_path, text=True)
        missed, found = map(int, output.split())
        return missed, found

    (cold, nothing), (none, warm) = start(), start()
    assert nothing == none == 0
    assert cold >= warm >= 2
    assert any((tmp_path / "data" / "cache" / "compiler").iterdir())


@needs_compiler
@long
def test_generated_code_gives_the_same_loss() -> None:
    model, x = unet(), clips()
    expected = loss_and_gradients(model, x)
    assert compile_in_place(model, CPU)
    assert_same(loss_and_gradients(model, x), expected)


def test_cuda_graphs_are_refused_where_gradients_accumulate() -> None:
    check_graphs("graphs", 1)
    check_graphs("auto", 2)
    with pytest.raises(ValueError, match="accumulate_grad_batches=2 batches; choose"):
        check_graphs("graphs", 2)


@needs_compiler
@long
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_replayed_steps_have_the_gradients_of_eager_ones(device: str) -> None:
    """On a GPU the first step warms up, the second records, the others replay."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = small().to(device)
    replayed = copy.deepcopy(model)
    assert compile_in_place(replayed, torch.device(device), mode=mode_of("graphs"))
    for step in range(5):
        torch.manual_seed(step)
        x = torch.randn(2, 3, 4, 8, 8, device=device)
        for network in (model, replayed):
            network.zero_grad()
            network(x, torch.zeros(2, device=device)).square().mean().backward()
        for one, other in zip(model.parameters(), replayed.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
