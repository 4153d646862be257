"""Laws of every noise schedule, and the known numbers of ours."""

import json
from pathlib import Path

import pytest
import torch

from tests.problems import build, options

NUM_STEPS = [1, 2, 3, 50, 1000]


@pytest.mark.parametrize("num_steps", NUM_STEPS)
@pytest.mark.parametrize("name", options("noise"))
def test_betas_are_float64_in_the_half_open_unit_interval(name: str, num_steps: int) -> None:
    schedule = build("noise", name, num_steps=num_steps)
    betas = schedule.betas()
    assert schedule.num_steps == num_steps
    assert betas.shape == (num_steps,)
    assert betas.dtype == torch.float64
    assert betas.min() >= 0
    assert betas.max() < 1


@pytest.mark.parametrize("name", options("noise"))
def test_every_schedule_adds_noise(name: str) -> None:
    for num_steps in NUM_STEPS:
        assert build("noise", name, num_steps=num_steps).betas().sum() > 0


@pytest.mark.parametrize("num_steps", [0, -3])
@pytest.mark.parametrize("name", options("noise"))
def test_a_chain_without_steps_is_refused_in_one_line(name: str, num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"num_steps must be at least 1, got {num_steps}") as error:
        build("noise", name, num_steps=num_steps)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_steps", [8, 50])
@pytest.mark.parametrize("name", ["linear", "cosine", "hybrid"])
def test_betas_equal_the_reference(name: str, num_steps: int, shared: Path) -> None:
    # 1 - c_i / c_{i-1} loses 1 / beta of the 2e-16 precision: 1e-13 for the smallest beta, 2e-3.
    expected = torch.tensor(
        next(
            table["betas"]
            for table in json.loads((shared / "reference" / "processes.json").read_text())
            if (table["schedule"], table["T"]) == (name, num_steps)
        ),
        dtype=torch.float64,
    )
    betas = build("noise", name, num_steps=num_steps).betas()
    torch.testing.assert_close(betas, expected, rtol=1e-12, atol=0)


def test_linear_of_1000_steps_is_that_of_ho_et_al() -> None:
    betas = build("noise", "linear", num_steps=1000).betas()
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(betas, expected, rtol=1e-15, atol=0)


def test_linear_of_one_step_has_beta_one_tenth() -> None:
    assert build("noise", "linear", num_steps=1).betas().tolist() == [pytest.approx(0.1, rel=1e-15)]


def test_cosine_accumulates_to_its_closed_form_where_it_is_not_clipped() -> None:
    num_steps, offset = 1000, 0.008
    betas = build("noise", "cosine", num_steps=num_steps, offset=offset, max_beta=0.9999).betas()
    unclipped = betas < 0.9999
    assert unclipped.sum() == num_steps - 1  # the curve ends at 0, so only beta_T is clipped
    x = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    curve = torch.cos((x + offset) / (1 + offset) * torch.pi / 2).square()
    expected = (curve / curve[0])[1:][unclipped]
    # 1000 factors 1 - beta, each rounded to 1e-16, and relative errors of up to 1e-16 / (1 - beta)
    torch.testing.assert_close((1 - betas).cumprod(0)[unclipped], expected, rtol=1e-12, atol=0)


def test_hybrid_puts_all_noise_on_every_second_step() -> None:
    betas = build("noise", "hybrid", num_steps=1000).betas()
    zero = (betas == 0).nonzero().flatten() + 1  # t
    assert len(zero) == 498
    low, high = zero[zero <= 262], zero[zero > 262]
    assert set((low % 2).tolist()) == {0}  # the sinh curve lies below the cosine curve here,
    assert set((high % 2).tolist()) == {1}  # and above it here


def test_hybrid_follows_its_two_curves_in_turn() -> None:
    num_steps, s = 50, 0.008
    betas = build("noise", "hybrid", num_steps=num_steps, offset=s, max_beta=0.9999).betas()
    x = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    cosine = torch.cos((x + s) / (1 + s) * torch.pi / 2).square()
    sinh = torch.sinh(((1 - x + s) / (1.3 + 1.5 * s)).sqrt())
    curves = torch.stack([cosine / cosine[0], sinh / sinh[0]])
    for i in range(1, num_steps + 1):
        beta = 1 - float(curves[i % 2, i] / curves[(i - 1) % 2, i - 1])
        assert float(betas[i - 1]) == pytest.approx(min(max(beta, 0), 0.9999), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ["linear", "cosine", "hybrid"])
@pytest.mark.parametrize("max_beta", [0.0, -0.1, 1.0, 2.0])
def test_max_beta_outside_the_open_unit_interval_is_refused(name: str, max_beta: float) -> None:
    with pytest.raises(ValueError, match=r"max_beta must lie in \(0, 1\)"):
        build("noise", name, num_steps=10, max_beta=max_beta).betas()


@pytest.mark.parametrize(("start", "end"), [(-0.1, 0.02), (0.02, 0.01)])
def test_linear_ends_out_of_order_are_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="0 <= start <= end"):
        build("noise", "linear", num_steps=10, start=start, end=end)


@pytest.mark.parametrize("name", options("noise"))
def test_max_beta_bounds_every_beta(name: str) -> None:
    assert build("noise", name, num_steps=20, max_beta=0.3).betas().max() <= 0.3
