"""precision=auto: bfloat16 where it is native and faster, stored in the run."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from ddpm_lightning.run import precision
from ddpm_lightning.run.precision import FULL, HALF, choose_precision
from tests.commands import TINY, Call, newest_run
from tests.training.test_callbacks import module

CLIPS = torch.zeros(2, 1, 4, 8, 8)
NETWORK = module().denoiser.network


@pytest.mark.parametrize(
    ("accelerator", "native", "seconds", "chosen"),
    [
        ("cpu", True, {True: 1.0, False: 2.0}, HALF),
        ("auto", True, {True: 1.0, False: 1.05}, FULL),
        ("cpu", True, {True: 3.0, False: 2.0}, FULL),
        ("cpu", False, {}, FULL),
        ("tpu", True, {}, FULL),
    ],
)
def test_the_faster_one_is_chosen_where_both_are_native(
    accelerator: str,
    native: bool,
    seconds: dict[bool, float],
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: native)
    monkeypatch.setattr(precision, "_seconds", lambda model, clips, is_half: seconds[is_half])
    assert choose_precision(accelerator, NETWORK, CLIPS, tmp_path / "answers.json") == chosen


def test_a_machine_is_asked_once_about_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else runs that are compared would differ by what else the machine was doing."""
    answers = tmp_path / "cache" / "answers.json"
    asked: list[int] = []

    def seconds(model: Any, clips: Tensor, is_half: bool) -> float:
        asked.append(len(clips))
        return 1.0 + (not is_half and len(clips) == 2)

    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_seconds", seconds)
    assert [choose_precision("cpu", NETWORK, CLIPS, answers) for _ in range(2)] == [
        HALF,
        HALF,
    ]
    assert asked == [2, 2]  # in both precisions, once
    assert choose_precision("cpu", NETWORK, CLIPS[:1], answers) == FULL  # another question
    assert choose_precision("cpu", NETWORK, CLIPS, answers) == HALF
    assert asked == [2, 2, 1, 1]
    answers.write_text("{")
    assert choose_precision("cpu", NETWORK, CLIPS, answers) == HALF
    assert asked == [2, 2, 1, 1, 2, 2]


def test_the_probe_leaves_the_module_as_it_was() -> None:
    model = module()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for is_half in (False, True):
        assert precision._seconds(model.denoiser.network, CLIPS, is_half) > 0
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_the_choice_is_stored_and_kept(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Any] = [HALF]
    monkeypatch.setattr("ddpm_lightning.run.early.choose_precision", lambda **given: chosen.pop())
    result = call("train", *TINY, "logger=csv", "trainer.precision=auto")
    assert result.code == 0, result.err
    assert "precision: bf16-mixed" in result.out
    assert call("train", "resume=last", "trainer.max_steps=5").code == 0
    for name in ("config.yaml", "composed.yaml"):
        stored = yaml.safe_load((newest_run(tmp_path) / name).read_text())
        assert stored.get("config", stored)["trainer"]["precision"] == HALF


def test_schedules_stay_in_float64_under_bfloat16() -> None:
    model = module()
    process = model.denoiser.process
    t = torch.arange(1, process.num_steps + 1)
    expected = [*process.marginal(t), process.log_snr(t)]
    seen: list[Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        found = [*process.marginal(t), process.log_snr(t)]
        convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        handle = convolution.register_forward_hook(lambda layer, given, output: seen.append(output))
        x_0 = torch.ones(2, 1, 4, 8, 8)
        loss = model.loss(model.denoiser, x_0, t[:2], torch.zeros_like(x_0))
        handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert {tensor.dtype for tensor in found} == {torch.float64}
    assert seen[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
