"""Averages: their windows in closed form, others rebuilt from them, and what is averaged at all."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.averages import (
    ConstantDecay,
    PowerDecay,
    Window,
    combine,
    gamma_of,
)
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files.checkpoints import by_step, read
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.training.callbacks.ema import EMA
from tests.training.test_callbacks import fit, module

NUM_STEPS = 2000


@cache
def windows(length: float) -> np.ndarray:
    """Row n - 1 of these NUM_STEPS rows is how much each step's weights count after step n."""
    rows = np.zeros((NUM_STEPS, NUM_STEPS))
    row, decay = np.zeros(NUM_STEPS), PowerDecay(length)
    for n in range(1, NUM_STEPS + 1):
        kept = decay.at(n)
        row *= kept
        row[n - 1] += 1 - kept
        rows[n - 1] = row
    return rows


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94), (12**-0.5 - 1e-9, 0)])
def test_gamma_is_that_of_the_paper(length: float, gamma: float) -> None:
    assert gamma_of(length) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("length", [0, -1, 0.3])
def test_lengths_that_no_power_has_are_refused(length: float) -> None:
    with pytest.raises(ValueError, match=r"relative_length must lie in \(0, 0\.289\)"):
        PowerDecay(length)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_a_powers_window_has_its_relative_length_at_any_step(length: float) -> None:
    rows = windows(length)
    for n in (500, NUM_STEPS):
        window, steps = rows[n - 1, :n], np.arange(1, n + 1)
        assert window.sum() == pytest.approx(1)  # nothing of the weights before the first step
        mean = window @ steps
        deviation = np.sqrt(window @ (steps - mean) ** 2) / n
        assert deviation == pytest.approx(length, abs=2 / n)  # steps are not a continuum


def test_constant_decay_warms_up() -> None:
    decay = ConstantDecay(0.5)
    assert [decay.at(n) for n in (1, 2, 8, 9)] == [2 / 11, 3 / 12, 0.5, 0.5]


@pytest.mark.parametrize(("length", "bound"), [(0.06, 0.007), (0.08, 0.006), (0.15, 0.018)])
def test_other_lengths_are_rebuilt_from_snapshots(length: float, bound: float) -> None:
    """Of 0.05 and 0.1 at 16 steps; the bounds are twice the distance that was seen."""
    found, kept = [], []
    for given in (0.05, 0.1):
        rows = windows(given)
        for step in range(NUM_STEPS // 16, NUM_STEPS + 1, NUM_STEPS // 16):
            found.append(Window(gamma_of(given), step))
            kept.append(rows[step - 1])
    coefficients = combine(found, Window(gamma_of(length), NUM_STEPS))
    wanted = windows(length)[-1]
    rebuilt = np.array(coefficients) @ np.array(kept)
    assert np.linalg.norm(rebuilt - wanted) < bound * np.linalg.norm(wanted)
    alone = min(np.linalg.norm(row - wanted) for row in kept)
    assert np.linalg.norm(rebuilt - wanted) < 0.3 * alone


def test_a_window_that_is_there_is_taken_alone() -> None:
    found = [Window(gamma, step) for gamma in (16.97, 6.94) for step in (100, 200, 300)]
    for place, wanted in enumerate(found):
        expected = np.eye(len(found))[place]
        assert combine(found, wanted) == pytest.approx(expected, abs=1e-6)


class Counted(nn.Module):
    """A float parameter and buffer, and an integer one."""

    seen: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.zeros(()))


def test_float_parameters_are_averaged_and_buffers_copied() -> None:
    process = StandardProcess(CosineSchedule(4, 0.008, 0.9999))
    network, averaged = Counted(), Counted()
    raw, average = (Denoiser(n, process, VelocityObjective()) for n in (network, averaged))
    ema = EMA({"ema": ConstantDecay(0.5)}, "")
    with torch.no_grad():
        network.weight.fill_(11)
        network.seen.fill_(7)
        network.scale.fill_(3)
    ema.update(average, raw, 1)
    assert averaged.weight.tolist() == pytest.approx([9, 9])  # 1 - 2/11 of 11
    assert averaged.seen == 7
    assert averaged.scale == 3


@pytest.mark.slow
def test_several_are_kept_at_once_and_the_first_is_used_once_it_is_one(tmp_path: Path) -> None:
    model = module()
    laws = {"short": PowerDecay(0.05), "long": PowerDecay(0.2), "steady": ConstantDecay(0.9)}
    ema = EMA(laws, str(tmp_path / "averages"), 2)
    assert model.inference_denoiser is model.denoiser
    ema.setup(fit(module(), callbacks=[], max_epochs=1), model, "fit")
    assert model.inference_denoiser is model.denoiser  # it is made, but not yet an average
    fit(model, callbacks=[ema], max_epochs=1)
    assert model.inference_denoiser is model.ema_denoiser
    kept = ema.state_dict()
    assert kept["num_updates"] == 4
    assert list(kept["others"]) == ["long", "steady"]
    assert model.ema_denoiser is not None
    raw, short = (dict(d.named_parameters()) for d in (model.denoiser, model.ema_denoiser))
    distances = [
        sum(float((weights[name] - raw[name]).detach().norm()) for name in raw)
        for weights in (short, kept["others"]["long"], kept["others"]["steady"])
    ]
    assert 0 < distances[0] < distances[1]  # the longer one lags behind more
    assert distances[2] > 0
    snapshots = [read(path) for path in by_step(tmp_path / "averages")]
    assert [snapshot["step"] for snapshot in snapshots] == [4, 2]
    assert {name: entry["gamma"] for name, entry in snapshots[0]["averages"].items()} == {
        "short": gamma_of(0.05),
        "long": gamma_of(0.2),
    }
    for name, tensor in snapshots[0]["averages"]["short"]["weights"].items():
        assert tensor.equal(short[name])
