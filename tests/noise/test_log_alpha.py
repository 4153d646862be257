"""log alpha of the continuous process: closed forms, and what is interpolated."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule
from tests.problems import Betas, build, noises, options

CLOSED_FORMS = ["cosine", "flow", "linear"]
NUM_STEPS = [1, 2, 3, 50, 1000]

INTERPOLATED = [name for name in options("noise") if name not in CLOSED_FORMS]

every_noise = pytest.mark.parametrize("name", noises())


def chain_log_alpha(schedule: NoiseSchedule) -> Tensor:
    """(T + 1,) of the standard chain."""
    falls = torch.log1p(-schedule.betas()) / 2
    return torch.cat([torch.zeros(1).double(), falls.cumsum(0)])


def test_closed_forms_are_those_that_override_the_interpolation() -> None:
    own = {
        name
        for name in options("noise")
        if type(build("noise", name)).log_alpha is not NoiseSchedule.log_alpha
    }
    assert own == {*CLOSED_FORMS}


@every_noise
def test_data_is_untouched_at_0_and_log_alpha_falls_from_there(name: str) -> None:
    for num_steps in NUM_STEPS:
        schedule = build("noise", name, num_steps=num_steps)
        t = torch.linspace(0, num_steps, 5003, dtype=torch.float64)
        log_alpha = schedule.log_alpha(t)
        assert log_alpha.dtype == torch.float64
        assert log_alpha[0] == 0  # exactly: sigma is the root of it
        assert schedule.log_alpha(t[0]) == 0
        assert log_alpha.isfinite().all()
        assert (log_alpha.diff() < 0).all()


@pytest.mark.parametrize("offset", [0.0, 0.0674098, 0.3, 5.0])
def test_cosine_leaves_data_untouched_under_every_offset(offset: float) -> None:
    """Two roundings of the curve's value at 0 would differ by 1e-16 and show as sigma = 1e-8."""
    schedule = build("noise", "cosine", offset=offset)
    assert schedule.log_alpha(torch.zeros(9).double()).tolist() == [0.0] * 9
    assert schedule.log_alpha(torch.tensor(1000.0).double()).isfinite()


@pytest.mark.parametrize("name", INTERPOLATED)
def test_the_interpolation_meets_the_standard_chain_at_every_step_that_noise_follows(
    name: str,
) -> None:
    """Steps of beta = 0 are passed over, so that log-SNR falls everywhere: log alpha lies between
    the steps around them (hybrid alone has such).
    """
    for num_steps in NUM_STEPS:
        schedule = build("noise", name, num_steps=num_steps)
        exact = chain_log_alpha(schedule)
        actual = schedule.log_alpha(torch.arange(num_steps + 1).double())
        followed = torch.cat([schedule.betas() > 0, torch.ones(1, dtype=torch.bool)])
        # Both are sums of the same terms.
        torch.testing.assert_close(actual[followed], exact[followed], rtol=1e-14, atol=0)
        passed = (~followed).nonzero().flatten()
        assert (actual[passed] >= exact[passed]).all()
        assert (actual[passed] < exact[passed - 1]).all()
        assert len(passed) == 0 or name == "hybrid"


@pytest.mark.parametrize("name", INTERPOLATED)
def test_the_interpolation_is_straight_between_steps(name: str) -> None:
    schedule = build("noise", name, num_steps=20)
    kept = [0, *((schedule.betas() > 0).nonzero().flatten()).tolist()[1:], 20]
    for low, high in pairwise(kept):
        ends = schedule.log_alpha(torch.tensor([low, high]).double())
        inside = schedule.log_alpha(torch.tensor([low + 0.25 * (high - low)]).double())
        expected = ends[0] + 0.25 * (ends[1] - ends[0])
        torch.testing.assert_close(inside[0], expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("betas", [[0.0, 0.0, 0.5], [0.0, 0.1, 0.0, 0.0, 0.2], [0.3, 0.0]])
def test_noise_begins_at_once_also_where_the_first_steps_add_none(betas: list[float]) -> None:
    """A walk starts at a finite log-SNR right after t = 0."""
    schedule = Betas(betas)
    log_alpha = schedule.log_alpha(torch.linspace(0, len(betas), 101, dtype=torch.float64))
    assert (log_alpha.diff() < 0).all() or betas[-1] == 0
    assert log_alpha[1] < 0
    assert float(log_alpha[-1]) == pytest.approx(float(chain_log_alpha(schedule)[-1]), rel=1e-14)


@pytest.mark.parametrize("num_steps", [10, 1000])
def test_linear_is_half_the_integral_of_beta(num_steps: int) -> None:
    """beta(t) = 1000 / T (start + (end - start) t / T); Simpson's rule is exact for a line."""
    start, end = 1e-4, 0.02
    schedule = build("noise", "linear", num_steps=num_steps, start=start, end=end)
    t = torch.linspace(0, num_steps, 41, dtype=torch.float64)

    def beta(u: Tensor) -> Tensor:
        return 1000 / num_steps * (start + (end - start) * u / num_steps)

    integral = t / 6 * (beta(0 * t) + 4 * beta(t / 2) + beta(t))
    torch.testing.assert_close(schedule.log_alpha(t), -integral / 2, rtol=1e-14, atol=0)


def test_linear_differs_from_its_chain_as_a_sum_differs_from_an_integral() -> None:
    """log(1 - beta) = -beta - beta^2 / 2 - ..: 1/4 sum beta_t^2 = 0.034 for T = 1000."""
    gaps = []
    for num_steps in (1000, 4000):
        schedule = build("noise", "linear", num_steps=num_steps)
        exact = chain_log_alpha(schedule)
        t = torch.arange(num_steps + 1).double()
        gaps.append(float((schedule.log_alpha(t) - exact).abs().max()))
    assert gaps[0] < 0.04  # of log alpha = -5
    assert gaps[1] < gaps[0] / 3.5  # first order in 1 / T: a quarter


def test_cosine_is_its_chain_before_the_last_step_alone_is_clipped() -> None:
    schedule = build("noise", "cosine")
    exact = chain_log_alpha(schedule)
    actual = schedule.log_alpha(torch.arange(1001).double())
    # 1000 factors 1 - beta, each rounded to 1e-16
    torch.testing.assert_close(actual[:-1], exact[:-1], rtol=1e-11, atol=1e-15)
    assert actual[-1] < exact[-1]  # the curve itself ends at 0


def test_cosine_is_its_curve_between_steps() -> None:
    offset, num_steps = 0.008, 50
    schedule = build("noise", "cosine", num_steps=num_steps, offset=offset)
    t = torch.tensor([0.3, 7.77, 25.0, 49.9], dtype=torch.float64)
    curve = torch.cos((t / num_steps + offset) / (1 + offset) * torch.pi / 2)
    start = torch.cos(torch.tensor(offset / (1 + offset) * torch.pi / 2, dtype=torch.float64))
    expected = (curve / start).log()
    torch.testing.assert_close(schedule.log_alpha(t), expected, rtol=1e-13, atol=1e-16)
