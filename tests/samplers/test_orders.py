"""Orders of convergence, against exact solutions, as the samplers declare them.

Along grids uniform in log-SNR between fixed ends of the continuous process, in float64 and with the
exact denoiser: all that is left is discretisation. The grids do not go to t = 0, where log-SNR is
infinite: the last interval is of first order for every method.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Draw
from tests.problems import FLOOR, Gaussian, Mixture, options, process_under
from tests.samplers.shared import bimodal, exact_law, flow, free, noiseless, spread

pytestmark = pytest.mark.slow  # as a whole: walks of many lengths

TOLERANCE = 0.25  # of a slope over three counts of intervals; the next order is 1 away


def counts_for(sampler: Sampler) -> list[int]:
    """Return three numbers of intervals: from 16, 32 or 64 on errors fall as the order says."""
    fewest = 8 * 2 ** min(sampler.order, 3)
    return [fewest, 2 * fewest, 4 * fewest]


def case(name: str, **overrides: Any) -> Any:
    words = [name, *(f"{key}={value}" for key, value in overrides.items())]
    return pytest.param(free(name, **overrides), id="-".join(words))


MEMBERS = [case(name) for name in options("sampler")]
DETERMINISTIC = [
    *(member for member in MEMBERS if not member.values[0].stochastic),
    *(case("unipc", predictor_order=p) for p in (1, 3)),
]
STOCHASTIC = [
    # A Langevin step does not shrink with the grid's; see the last test.
    *(member for member in MEMBERS if member.values[0].stochastic and "corrector" not in member.id),
    case("ancestral", variance=1.0),
    case("ddim", eta=0.5),
    case("dpmpp_2m", eta=0.5),
    case("euler", churn=5.0, churn_noise=1.0),
    case("heun", churn=5.0, churn_noise=1.0),
]


def linear() -> VariancePreservingProcess:
    return process_under(VariancePreservingProcess, "linear")


def grid(low: float, high: float, num_intervals: int) -> Tensor:
    """Times with log-SNR rising evenly from low to high."""
    levels = torch.linspace(low, high, num_intervals + 1, dtype=torch.float64)
    return linear().axis(FLOOR).at_log_snr(levels)


def normal(mean: float, std: float) -> Callable[[Draw], Tensor]:
    """Starts N(mean, std^2) of a walk, made of its first draw."""
    return lambda draw: (mean + std * draw())[None]


def with_intervals(sampler: Sampler, num_intervals: int) -> Sampler:
    """The sampler for a walk of so many: it shares out its churn between them."""
    sampler = copy.copy(sampler)
    sampler.num_evaluations = 1
    while sampler.num_intervals < num_intervals:
        sampler.num_evaluations += 1
    return sampler


def slope(counts: list[int], errors: list[float]) -> float:
    """The order: least squares of log2 error over log2 of the number of intervals."""
    assert min(errors) > 1e-13, errors  # round-off would flatten it
    return float(-np.polyfit(np.log2(counts), np.log2(errors), 1)[0])


def flow_errors(sampler: Sampler, data: Mixture, low: float, high: float) -> list[float]:
    """The greatest of nine paths' errors, for each number of intervals."""
    errors = []
    for num_intervals in counts_for(sampler):
        times = grid(low, high, num_intervals)
        x = spread(data, times[0])
        end = sampler.walk(data, x, times, noiseless)
        errors.append(float((end - flow(data, x, times[0], times[-1])).abs().max()))
    return errors


def test_quantiles_of_a_gaussian_follow_its_closed_form() -> None:
    """The exact solution that the mixture is compared with, itself compared."""
    data = Gaussian(linear(), mean=0.3, std=0.5)
    t, s = grid(-8, 5, 1)
    x = spread(data, t)
    torch.testing.assert_close(flow(data, x, t, s), data.flow(x, t, s), rtol=0, atol=1e-13)


@pytest.mark.parametrize("problem", ["gaussian", pytest.param("mixture", marks=pytest.mark.slow)])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_walks_converge_at_the_declared_order(sampler: Sampler, problem: str) -> None:
    """From log-SNR -8 to 5. Modes narrower than a step would hide every order."""
    data = Gaussian(linear(), 0.3, 0.5) if problem == "gaussian" else bimodal(linear())
    order = slope(counts_for(sampler), flow_errors(sampler, data, -8, 5))
    print(f"{order:.2f}")
    assert order == pytest.approx(sampler.order, abs=TOLERANCE)


def test_unipc_of_order_three_keeps_its_order_only_where_the_start_is_smooth() -> None:
    """Its first step is of second order and leaves an error of third order behind. At log-SNR -8
    the estimate hardly depends on x yet, and nothing of it is seen; from log-SNR 0 on it is.
    """
    data = Gaussian(linear(), mean=0.3, std=0.5)
    sampler = free("unipc", predictor_order=3)
    order = slope(counts_for(sampler), flow_errors(sampler, data, 0, 5))
    assert order == pytest.approx(3, abs=TOLERANCE)


def test_heun_is_exact_for_data_of_unit_variance_from_any_noise() -> None:
    """There x / sqrt(alpha^2 + sigma^2) does not change along the flow: one interval, from -24."""
    data = Gaussian(process_under(VariancePreservingProcess, "cosine"), mean=0.0, std=1.0)
    times = data.process.axis(-24.0).at_log_snr(torch.tensor([-24.0, 3.0], dtype=torch.float64))
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(free("heun").walk(data, x, times, noiseless), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_stochastic_walks_converge_weakly_at_the_declared_order(sampler: Sampler) -> None:
    """Mean and standard deviation at log-SNR 5, from the exact marginal at -8 on."""
    data = Gaussian(linear(), mean=0.3, std=0.5)
    errors = []
    for num_intervals in counts_for(sampler):
        churning = with_intervals(sampler, num_intervals)
        times = grid(-8, 5, num_intervals)
        mean, std = data.moments(times[0])
        end = exact_law(churning, data, times, normal(mean, std))
        mean, std = data.moments(times[-1])
        errors.append(abs(end[0] - mean) + abs(end[1] - std))
    order = slope(counts_for(sampler), errors)
    print(f"{order:.2f}")
    assert order == pytest.approx(sampler.order, abs=TOLERANCE)


@pytest.mark.parametrize("snr", [0.16, 0.32])
def test_langevin_steps_settle_at_the_marginal_widened_by_their_size(snr: float) -> None:
    """x + e score + sqrt(2 e) noise on N(m, V) has the stationary law N(m, V / (1 - e / 2V)), with
    e = 2 (snr sigma)^2. 400 of them at log-SNR 0, each of which shrinks what is left by 4 % at
    least, after predictor steps that lead nowhere.
    """
    data = Gaussian(linear(), mean=0.3, std=0.5)
    sampler = free("predictor_corrector", eta=0.0, corrector_steps=4, corrector_snr=snr)
    times = grid(0, 0, 100)
    end = exact_law(sampler, data, times, lambda draw: 0 * draw())
    mean, std = data.moments(times[0])
    sigma = float(linear().level(times[0]).sigma)
    assert end[0] == pytest.approx(mean, abs=1e-6)
    assert end[1] == pytest.approx(std / (1 - (snr * sigma / std) ** 2) ** 0.5, abs=1e-6)
