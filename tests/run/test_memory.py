"""The batch size that a run trains with, and what the device cannot hold."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.networks.memory import RESERVE, measure
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.start import read_status
from ddpm_lightning.run.fitting import memory
from ddpm_lightning.run.fitting.memory import choose_batch, gpu_index, training_dtype
from tests.commands import TINY, Call, assert_user_error, newest_run
from tests.networks.shared import unet

CLIP = (3, 4, 8, 8)


class Launched(nn.Module):
    """x -> weight x, which takes as long for many clips as for one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        time.sleep(0.05)  # long beside a busy machine's delays
        return x * self.weight


def config(batch_size: int | str, **more: Any) -> dict[str, Any]:
    """The parts of a run's configuration that decide what it takes."""
    network = {"checkpointing": None} | more
    average = {"_target_": "ddpm_lightning.averages.Decay"}
    return {
        "data": {"size": 8, "num_frames": 4, "fps": 8, "channels": 3, "batch_size": batch_size},
        "model": {"denoiser": {"network": network}},
        "callbacks": {"ema": {"averages": {"short": average, "long": average}}},
        "trainer": {"accelerator": "cpu", "precision": "32-true"},
    }


@pytest.fixture
def four_clips(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are available: as many as four clips need, of which no more than RESERVE count."""
    plan = measure(Launched(), CLIP, torch.device("cpu"), averages=2)
    available = int(plan.total(4) / RESERVE) + 1
    monkeypatch.setattr(memory, "available_bytes", lambda device: available)
    return available


@pytest.mark.slow
def test_auto_takes_the_largest_power_of_two_that_fits(four_clips: int) -> None:
    given = config("auto")
    budget = choose_batch(given, Launched())
    assert (budget.batch_size, budget.available) == (4, four_clips)
    assert given == config("auto")
    assert budget.plan.fixed == (1 + 3 + 2) * 4  # a weight of four bytes, two averages


def test_auto_takes_no_more_than_its_largest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGEST_BATCH", 2)
    assert choose_batch(config("auto"), Launched()).batch_size == 2


@pytest.mark.slow
@pytest.mark.usefixtures("four_clips")
def test_a_batch_that_does_not_fit_is_refused_with_the_halves_that_do() -> None:
    assert choose_batch(config(4), Launched()).batch_size == 4
    given = config(24)
    given["trainer"]["accumulate_grad_batches"] = 2
    words = r"^data.batch_size=24 needs more than 90% of the 0.0 GiB that are free; add "
    words += r"data.batch_size=3 trainer.accumulate_grad_batches=16, or try network.checkpointing"
    with pytest.raises(UserError, match=words):
        choose_batch(given, Launched())


@pytest.mark.parametrize("batch_size", [1, "auto"])
@pytest.mark.parametrize(
    ("checkpointing", "remedy"),
    [
        (None, "network.checkpointing=true, a smaller data.size or a smaller network="),
        ([True, False], "network.checkpointing=true, a smaller data.size or a smaller network="),
        ([True, True], "a smaller data.size or a smaller network="),
        (True, "a smaller data.size or a smaller network="),
    ],
    ids=str,
)
def test_a_clip_that_does_not_fit_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int | str,
    checkpointing: bool | list[bool] | None,
    remedy: str,
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**10)
    words = "^a single clip of 4x8x8 needs more than 90% of the 0.0 GiB that are free; choose "
    with pytest.raises(UserError, match=f"{words}{remedy}$"):
        choose_batch(config(batch_size, checkpointing=checkpointing), Launched())


def test_a_clip_that_the_network_refuses_is_refused() -> None:
    given = config(1)
    given["data"]["size"] = 7
    with pytest.raises(UserError, match="model: frame height must be divisible by the network's"):
        choose_batch(given, unet(channels=3))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("16-mixed", torch.bfloat16),
    ],
)
def test_the_network_is_measured_in_its_precision(precision: str, dtype: torch.dtype) -> None:
    assert training_dtype({"accelerator": "cpu", "precision": precision}) == dtype


def test_every_rank_measures_on_its_own_gpu() -> None:
    for devices in ("auto", -1, 4, "4"):
        assert gpu_index(devices, local_rank=1) == 1
    for listed in ("2,3", [2, 3]):
        assert gpu_index(listed, local_rank=1) == 3


def test_free_memory_of_this_machine_is_read() -> None:
    assert 2**26 < memory.available_bytes(torch.device("cpu")) < 2**50


@pytest.mark.slow
def test_out_of_memory_in_the_first_step_is_one_line_with_what_works(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has memory for two clips at a time, which one and two do not show."""
    forward = UNet3D.forward

    def hungry(self: UNet3D, x: Tensor, *arguments: Any, **conditions: Any) -> Tensor:
        if len(x) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, x, *arguments, **conditions)

    monkeypatch.setattr(UNet3D, "forward", hungry)
    words = [*TINY, "logger=csv"]
    line = (
        "out of memory before a second step was over with data.batch_size=4; add data.batch_size=2 "
    )
    line += "trainer.accumulate_grad_batches=2, or try network.checkpointing=true"
    assert_user_error(call("train", *words, "data.batch_size=4"), line)
    assert read_status(newest_run(tmp_path))["status"] == "failed"
    works = ["data.batch_size=2", "trainer.accumulate_grad_batches=2", "trainer.max_steps=1"]
    result = call("train", *words, *works)
    assert result.code == 0, result.err
