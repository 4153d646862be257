"""Steps without a finite gradient: skipped, counted, told, and the end of a run of them."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.simple import SimpleLoss
from ddpm_lightning.training.callbacks.numerics import NonFinite, NumericsGuard
from tests.training.test_callbacks import fit, module


class Poisoned(Loss):
    """The plain loss, but for one sample of the given calls, whose value or gradient is not finite.

    value: what is added; nan + 0 * loss has a gradient of nan, sqrt at 0 an infinite one only, and
    an infinite constant none that shows.
    """

    def __init__(self, calls: set[int], what: str) -> None:
        self.calls, self.what = calls, what
        self.num_calls = 0

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        loss = SimpleLoss()(denoiser, x_0, t, level, noise)
        self.num_calls += 1
        if self.num_calls not in self.calls:
            return loss
        if self.what == "infinite":
            return loss + torch.tensor([0.0, torch.inf])
        if self.what == "loss":
            return loss * torch.tensor([1.0, float("nan")])
        return loss + (loss * torch.tensor([0.0, 0.0])).sqrt()


class Weights(pl.Callback):
    """Weights and optimizer state after every step."""

    def __init__(self) -> None:
        self.after: list[list[Tensor]] = []
        self.moments: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self.after.append([p.detach().clone() for p in pl_module.parameters()])
        state = trainer.optimizers[0].state
        self.moments.append(sum(float(entry["exp_avg"].abs().sum()) for entry in state.values()))


def late(*_: object) -> bool:
    return True


def fused(model: pl.LightningModule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    ("what", "told"), [("loss", "nan"), ("gradient", None), ("infinite", "inf")]
)
def test_a_step_without_a_finite_gradient_changes_nothing(
    what: str, told: str | None, is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late: as on a GPU, where the fused optimizer skips by itself."""
    model = module()
    if is_late:
        monkeypatch.setattr(NumericsGuard, "is_late", late)
        model.optimizer = fused(model)
    model.loss = Poisoned({2}, what)
    weights, guard = Weights(), NumericsGuard(str(tmp_path / "run" / "skipped.jsonl"))
    trainer = fit(model, callbacks=[guard, weights], max_epochs=1, gradient_clip_val=1.0)
    assert trainer.global_step == 4
    first, second, third, _ = weights.after
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert weights.moments[0] == weights.moments[1] != weights.moments[2]
    assert any(not a.equal(b) for a, b in zip(second, third, strict=True))
    assert all(p.isfinite().all() for p in model.parameters())
    assert trainer.callback_metrics["train/skipped_steps"] == 1
    (row,) = map(json.loads, (tmp_path / "run" / "skipped.jsonl").read_text().splitlines())
    assert row["step"] == 1
    assert [sample["number"] for sample in row["samples"]] == [2, 3]
    assert [sample["clip"] for sample in row["samples"]] == [2, 3]
    assert all(-20 < sample["log_snr"] < 20 for sample in row["samples"])
    assert isinstance(row["samples"][0]["loss"], float)
    assert str(row["samples"][1]["loss"]) == told if told else row["samples"][1]["loss"] > 0


@pytest.mark.slow
def test_all_that_was_accumulated_is_told(tmp_path: Path) -> None:
    model = module()
    model.loss = Poisoned({1}, "loss")
    guard = NumericsGuard(str(tmp_path / "skipped.jsonl"))
    fit(model, callbacks=[guard], max_epochs=1, accumulate_grad_batches=2)
    (row,) = map(json.loads, (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert [sample["number"] for sample in row["samples"]] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [False, True])
def test_so_many_in_a_row_end_the_run(
    is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = module()
    if is_late:
        monkeypatch.setattr(NumericsGuard, "is_late", late)
        model.optimizer = fused(model)
    model.loss = Poisoned({1, 3, 4, 5, 6, 7}, "loss")
    guard = NumericsGuard(str(tmp_path / "skipped.jsonl"), max_in_a_row=3)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NonFinite, match="3 steps in a row, from step 2 on"):
        fit(model, callbacks=[guard], max_epochs=2)
    assert any(not a.equal(b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.isfinite().all() for p in model.parameters())
    assert guard.state_dict() == {"num_skipped": 4, "in_a_row": 3}
