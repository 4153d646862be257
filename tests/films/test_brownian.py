"""Ink spreads by sqrt(2 D t), and the exact score leads it back."""

import pytest
import torch

from ddpm_lightning.evaluation.distances import sliced_wasserstein
from ddpm_lightning.films.brownian import STEPS, BrownianFilm, Motion
from ddpm_lightning.films.ring import RADIUS, VARIANCE

NUM, D = 2000, 0.05


@pytest.fixture(scope="module")
def film() -> BrownianFilm:
    return BrownianFilm(NUM, D)


@pytest.fixture(scope="module")
def there(film: BrownianFilm) -> Motion:
    return film.there()


@pytest.fixture(scope="module")
def back(film: BrownianFilm, there: Motion) -> Motion:
    return film.back(there.x[-1])


def test_the_spread_of_ink_follows_its_law(film: BrownianFilm, there: Motion) -> None:
    """s^2 = s_0^2 + 2 D t: five standard errors of the variance of 2 NUM values."""
    variance = VARIANCE + 2 * D * there.t
    torch.testing.assert_close(film.law_of_spread(there.t).square(), variance)
    measured = there.x.var(1).mean(-1)
    torch.testing.assert_close(measured, variance, rtol=5 * NUM**-0.5, atol=0)


def test_moves_are_those_of_brownian_motion(film: BrownianFilm, there: Motion) -> None:
    """Cov(x_s, x_t | x_0) = 2 D min(s, t), at a third and at all of the time."""
    s, t = there.t[len(there.t) // 3], there.t[-1]
    moves_s, moves_t = (there.x[i] - there.x[0] for i in (len(there.t) // 3, -1))
    measured = (moves_s * moves_t).mean()
    error = 5 * float(film.motion.level(s).sigma * film.motion.level(t).sigma) / NUM**0.5
    law = film.motion.covariance(s, t)
    torch.testing.assert_close(measured, law, rtol=0, atol=error)
    torch.testing.assert_close(law, 2 * D * s)


@pytest.mark.slow
def test_the_way_back_ends_in_the_law_that_the_ink_started_from(
    film: BrownianFilm, there: Motion, back: Motion
) -> None:
    assert torch.equal(back.t, there.t.flip(0))
    assert torch.equal(back.x[0], there.x[-1])
    x_0 = back.x[-1]
    error = 5 * (VARIANCE / NUM) ** 0.5
    torch.testing.assert_close(x_0.mean(0), torch.zeros(2).double(), rtol=0, atol=error)
    torch.testing.assert_close(x_0.T.cov(), VARIANCE * torch.eye(2).double(), rtol=0, atol=error)
    again = film.ring.draw(NUM, torch.Generator().manual_seed(7))
    floor = sliced_wasserstein(there.x[0], again)
    assert sliced_wasserstein(x_0, again) < 2 * floor
    assert float((x_0.norm(dim=1) - RADIUS).abs().median()) < 0.03  # on the ring


def test_half_way_back_the_law_is_that_of_the_way_there(film: BrownianFilm, back: Motion) -> None:
    k = len(back.t) // 2
    variance = film.law_of_spread(back.t[k]).square()
    torch.testing.assert_close(back.x[k].var(0).mean(), variance, rtol=5 * NUM**-0.5, atol=0)


def test_times_are_even_in_the_spread_of_a_point(film: BrownianFilm) -> None:
    """sqrt(2 D t) grows by as much from each image to the next."""
    sigma = film.motion.level(film.times).sigma
    torch.testing.assert_close(sigma.diff(), sigma[-1].expand(len(sigma) - 1) / (30 * STEPS))
