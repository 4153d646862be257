"""What `auto` means: bfloat16 on a GPU that has it, float32 elsewhere; stored in the run."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from ddpm_lightning.run.fitting import settle
from ddpm_lightning.run.fitting.settle import FULL, HALF
from tests.commands import TINY, Call, newest_run
from tests.problems import options
from tests.run.test_configs import composed
from tests.training.test_callbacks import module


@pytest.mark.parametrize(
    ("is_there", "native", "precision"),
    [(True, True, HALF), (True, False, FULL), (False, True, FULL)],
)
def test_precision_is_half_on_a_gpu_with_native_bfloat16_alone(
    is_there: bool, native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for accelerator in ("auto", "gpu", "cuda"):
        assert settle.choose_precision({"accelerator": accelerator}) == precision
    assert settle.choose_precision({"accelerator": "cpu"}) == FULL


@pytest.mark.long
def test_the_choice_is_stored(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In what a resumed run reads."""
    monkeypatch.setattr(settle, "choose_precision", lambda trainer: HALF)
    short = ["trainer.max_steps=1", "trainer.val_check_interval=1"]
    result = call("train", *TINY, "logger=csv", *short, "trainer.precision=auto")
    assert result.code == 0, result.err
    assert "precision: bf16-mixed" in result.out
    for name in ("config.yaml", "composed.yaml"):
        stored = yaml.safe_load((newest_run(tmp_path) / name).read_text())
        assert stored.get("config", stored)["trainer"]["precision"] == HALF


def test_schedules_stay_in_float64_under_bfloat16() -> None:
    model = module()
    process = model.denoiser.process
    t = torch.arange(1, process.num_steps + 1)
    expected = process.level(t)
    outputs: list[Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        level = process.level(t)
        convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        handle = convolution.register_forward_hook(lambda layer, x, output: outputs.append(output))
        x_0 = torch.ones(2, 1, 4, 8, 8)
        model.loss(model.denoiser, x_0, t[:2], process.level(t[:2]), torch.zeros_like(x_0))
        handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(level, expected, strict=True))
    assert {tensor.dtype for tensor in level} == {torch.float64}
    assert outputs[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", options("trainer"))
def test_every_trainer_leaves_its_precision_to_the_device(name: str, tmp_path: Path) -> None:
    assert composed(tmp_path / "run", f"trainer={name}")["trainer"]["precision"] == "auto"
