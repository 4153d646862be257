"""The known numbers of each schedule: papers, other implementations, closed forms."""

import json
from math import exp
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import build


def cumulative(betas: Tensor) -> Tensor:
    """abar_t, t = 1..T."""
    return (1 - betas).cumprod(0)


def unit_interval(num_steps: int) -> Tensor:
    return torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


def hybrid_curves(num_steps: int, s: float) -> Tensor:
    """(2, T + 1): the cosine and the sinh curve, both 1 at 0."""
    x = unit_interval(num_steps)
    cosine = torch.cos((x + s) / (1 + s) * torch.pi / 2).square()
    sinh = torch.sinh(((1 - x + s) / (1.3 + 1.5 * s)).sqrt())
    return torch.stack([cosine / cosine[0], sinh / sinh[0]])


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


def test_scaled_linear_of_1000_steps_is_that_of_latent_diffusion() -> None:
    """As in diffusers, beta_schedule="scaled_linear"; and the noise levels that are quoted for
    Stable Diffusion, sigma / alpha from 0.0292 to 14.6146.
    """
    betas = build("noise", "scaled_linear", num_steps=1000).betas()
    expected = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(betas, expected, rtol=1e-14, atol=0)
    abar = cumulative(betas)
    levels = ((1 - abar) / abar).sqrt()
    assert float(levels[0]) == pytest.approx(0.0292, abs=5e-5)
    assert float(levels[-1]) == pytest.approx(14.6146, abs=5e-5)
    assert float(abar[-1]) == pytest.approx(0.0047, abs=5e-5)


def test_scaled_linear_of_fewer_steps_destroys_about_as_much() -> None:
    """T = 1000 and T = 200: sums of beta agree to 1 %, and beta^2 / 2 adds up to 0.1 more."""
    log_abar = [
        float((-build("noise", "scaled_linear", num_steps=n).betas()).log1p().sum())
        for n in (1000, 200)
    ]
    assert log_abar[0] == pytest.approx(log_abar[1], rel=0.04)


def test_cosine_accumulates_to_its_closed_form_where_it_is_not_clipped() -> None:
    num_steps, offset = 1000, 0.008
    betas = build("noise", "cosine", num_steps=num_steps, offset=offset, max_beta=0.9999).betas()
    unclipped = betas < 0.9999
    assert unclipped.sum() == num_steps - 1  # the curve ends at 0, so only beta_T is clipped
    expected = hybrid_curves(num_steps, offset)[0, 1:][unclipped]
    # 1000 factors 1 - beta, each rounded to 1e-16, and relative errors of up to 1e-16 / (1 - beta)
    torch.testing.assert_close(cumulative(betas)[unclipped], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("start", "end", "temperature"), [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.7), (-3.0, 3.0, 0.1)]
)
def test_sigmoid_accumulates_to_the_curve_of_jabri_et_al(
    start: float, end: float, temperature: float
) -> None:
    num_steps = 1000
    schedule = build(
        "noise", "sigmoid", num_steps=num_steps, start=start, end=end, temperature=temperature
    )

    def logistic(u: float) -> float:
        return 1 / (1 + exp(-u / temperature))

    width = logistic(end) - logistic(start)
    expected = [
        (logistic(end) - logistic(start + i / num_steps * (end - start))) / width
        for i in range(1, num_steps)
    ]
    # The curve is a difference of numbers near 1, of which 1e-3 (1e-13 at the lowest temperature)
    # are left before its end: 1e-16 over that.
    expected_abar = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        cumulative(schedule.betas())[:-1], expected_abar, rtol=1e-11, atol=1e-15
    )


def test_sigmoid_is_symmetric_about_the_middle() -> None:
    """abar(x) + abar(1 - x) = 1 where start = -end; so log-SNR is 0 in the middle."""
    abar = cumulative(build("noise", "sigmoid", num_steps=200).betas())[:-1]
    torch.testing.assert_close(abar + abar.flip(0), torch.ones(199).double(), rtol=1e-12, atol=0)


def test_sigmoid_of_a_temperature_too_low_for_float64_still_is_a_schedule() -> None:
    """The curve reaches 0 before its end; no noise is added to nothing."""
    betas = build("noise", "sigmoid", num_steps=100, temperature=0.02).betas()
    assert ((betas >= 0) & (betas <= 0.9999)).all()
    assert cumulative(betas)[-1] < 1e-4


@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_flow_has_the_log_snr_of_a_straight_line_from_data_to_noise(num_steps: int) -> None:
    """2 log((1 - x) / x), on the chain before its last, clipped step and at any real t."""
    schedule = build("noise", "flow", num_steps=num_steps)
    x = unit_interval(num_steps)[1:-1]
    expected = 2 * (1 - x).log() - 2 * x.log()
    log_snr = StandardProcess(schedule).log_snr(torch.arange(1, num_steps))
    # 1 - abar is 1e-6 at t = 1: 1e-16 over that, and 1000 steps add up
    torch.testing.assert_close(log_snr, expected, rtol=0, atol=1e-9)
    log_alpha = schedule.log_alpha(x * num_steps)
    torch.testing.assert_close(2 * log_alpha, torch.nn.functional.logsigmoid(expected))


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
    curves = hybrid_curves(num_steps, s)
    for i in range(1, num_steps + 1):
        beta = 1 - float(curves[i % 2, i] / curves[(i - 1) % 2, i - 1])
        assert float(betas[i - 1]) == pytest.approx(min(max(beta, 0), 0.9999), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_hybrid_blend_is_the_mean_of_both_curves_in_log_snr(num_steps: int) -> None:
    process = StandardProcess(build("noise", "hybrid_blend", num_steps=num_steps, offset=0.008))
    f, h = hybrid_curves(num_steps, 0.008)[:, 1:]
    expected = ((f / (1 - f)).log() + (h / (1 - h)).log()) / 2
    log_snr = process.log_snr(torch.arange(1, num_steps + 1))
    assert (process.schedule.betas()[:-1] < 0.9999).all()  # the last is clipped: f ends at 0
    # 1 - f loses three digits at t = 1.
    torch.testing.assert_close(log_snr[:-1], expected[:-1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 1000, 4000])
def test_hybrid_blend_is_monotone_where_hybrid_is_not(num_steps: int) -> None:
    betas = build("noise", "hybrid_blend", num_steps=num_steps).betas()
    assert (betas > 0).all()
    assert (build("noise", "hybrid", num_steps=50).betas() == 0).any()


@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_karras_noise_levels_are_those_of_equation_5(num_steps: int) -> None:
    low, high, rho = 0.002, 80.0, 7.0
    schedule = build("noise", "karras", num_steps=num_steps, sigma_min=low, sigma_max=high, rho=rho)
    alpha, sigma, _ = StandardProcess(schedule).level(torch.arange(1, num_steps + 1))
    i = torch.arange(num_steps, dtype=torch.float64)
    roots = low ** (1 / rho) + i / (num_steps - 1) * (high ** (1 / rho) - low ** (1 / rho))
    # From T = 3 on no step is clipped; at T = 2 the only one of 1 - 1e-9 is.
    unclipped = schedule.betas() < schedule.max_beta
    assert unclipped.all() or num_steps == 2
    torch.testing.assert_close(
        (sigma / alpha)[unclipped], roots.pow(rho)[unclipped], rtol=1e-10, atol=0
    )


def test_karras_of_one_step_has_the_highest_level() -> None:
    alpha, sigma, _ = StandardProcess(build("noise", "karras", num_steps=1)).level(1)
    assert float(sigma / alpha) == pytest.approx(80.0, rel=1e-3)  # but for max_beta
