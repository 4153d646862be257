"""Where the time of the first steps goes, and what is said to change."""

import logging
import re

import pytest
from lightning.pytorch.profilers import PassThroughProfiler, simple
from torch import Tensor

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.training.callbacks import diagnosis
from ddpm_lightning.training.callbacks.diagnosis import (
    Diagnosis,
    Stopwatch,
    diagnose,
)
from ddpm_lightning.training.module import StandardDiffusion
from tests.training.test_callbacks import fit, module


def shares_of(told: str) -> dict[str, float]:
    """part -> per cent of a step."""
    found = re.findall(r"([a-z ]+) ([\d.]+)%", " ".join(told.split()))
    return {name.strip(): float(share) for name, share in found}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


class Clock:
    """Passes in forward passes, a second each, and a little whenever somebody looks at it."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.001
        return self.now


@pytest.mark.slow
def test_the_parts_of_a_step_are_all_of_it_and_are_told_once(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for user in (diagnosis, simple):
        monkeypatch.setattr(user, "time", clock)

    class SlowForward(StandardDiffusion):
        def training_step(self, batch: Batch, batch_index: int) -> Tensor:
            clock.now += 1
            return super().training_step(batch, batch_index)

    model = module()
    model.__class__ = SlowForward
    trainer = fit(model, callbacks=[Diagnosis(num_steps=5)], max_steps=12)
    (record,) = [r for r in told.records if r.name.endswith("diagnosis")]
    shares = shares_of(record.message.split("change")[0])
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)  # five roundings
    assert shares["forward"] > 90
    assert "nothing stands out" in record.message
    assert isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_waiting_for_data_is_told_with_what_to_change(told: pytest.LogCaptureFixture) -> None:
    fit(module(), seconds=0.2, callbacks=[Diagnosis(num_steps=5)], max_steps=6)
    assert re.search(r"\d\d% of a step is waiting for data: data.num_workers=2", told.text)


@pytest.mark.slow
def test_a_run_that_ends_sooner_leaves_no_report_of_lightning(
    told: pytest.LogCaptureFixture,
) -> None:
    fit(module(), callbacks=[Diagnosis(num_steps=50)], max_epochs=2)
    assert "Profiler Report" not in told.text


@pytest.mark.slow
def test_what_is_done_too_often_is_told_with_how_often_to_do_it() -> None:
    trainer = fit(module(), callbacks=[], max_steps=1)
    stopwatch = Stopwatch(waits=False)
    for action in ("[Strategy]Single.training_step", "[LightningModule]Model.optimizer_step"):
        stopwatch.recorded_durations[action] = [0.1] * 90  # the second holds the first
    assert "nothing stands out" in diagnose(trainer, stopwatch, 9.0, 90)
    # A validation of 6 s follows every 4 steps of 0.1 s; 6 s are 5 % of 1,200 steps.
    stopwatch.recorded_durations["validation"] = [6.0]
    trainer.val_check_batch = 4
    times, change = diagnose(trainer, stopwatch, 15.0, 90).split("change")
    assert "100 ms a step: data 0.0%, forward 100.0%" in times
    assert "validation 6 s, every 4 steps: 93.8%" in times
    assert change.strip() == "94% of the time goes to validation: trainer.val_check_interval=1200"
    change = diagnose(trainer, stopwatch, 18.0, 90).split("change")[1].strip().splitlines()[0]
    assert change == "25% of a step is logging: trainer.log_every_n_steps=20"
