"""The score's and the schedules' pictures show what theory says."""

import pytest
import torch

from ddpm_lightning.films.bound import BoundFilm, noise_weight
from ddpm_lightning.films.ring import VARIANCE, plane
from ddpm_lightning.films.schedule import density
from ddpm_lightning.films.score import ScoreFilm
from ddpm_lightning.noise.linear import LinearSchedule
from ddpm_lightning.noise.matched import MatchedSchedule
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import process_under

EDGES = torch.arange(-30, 31, dtype=torch.float64)


def test_far_from_data_the_score_is_that_of_one_gaussian() -> None:
    """sigma times the score is -sigma x / (alpha^2 s^2 + sigma^2) where all shares are equal."""
    film = ScoreFilm(process_under(StandardProcess, "cosine"), [-8.0])
    alpha, sigma, log_snr = film.ring.process.level(film.times[0])
    assert float(log_snr) == pytest.approx(-8, abs=0.1)
    x = plane(1.0, 5)
    law = -sigma * x / (alpha.square() * VARIANCE + sigma.square())
    torch.testing.assert_close(film.field(film.times[0], x), law, rtol=0, atol=2e-3)


def test_on_the_ring_noise_leads_away_and_the_score_back() -> None:
    film = ScoreFilm(process_under(StandardProcess, "cosine"), [4.0])
    outside = film.ring.process.level(film.times[0]).alpha * film.ring.means * 1.2
    field = film.field(film.times[0], outside)
    assert ((field * outside).sum(1) < 0).all()


def test_a_density_is_one_in_all_and_depends_on_log_snr_alone() -> None:
    """`matched` gives the standard chain the log-SNR of the median one, and so its density."""
    median = MedianProcess(LinearSchedule(1000))
    standard = StandardProcess(MatchedSchedule(1000, median))
    of_median, of_standard = (density(process, EDGES) for process in (median, standard))
    assert float(of_median.sum()) == pytest.approx(1)
    torch.testing.assert_close(of_standard, of_median, rtol=0, atol=1e-3)


def test_the_bounds_weight_of_noise_is_that_of_ho_et_al() -> None:
    """beta^2 / (2 v (1 - beta) sigma_t^2), v = beta sigma_{t-1}^2 / sigma_t^2: their eq. 12."""
    chain = process_under(StandardProcess, "linear")
    t = torch.arange(2, 1001)
    beta, variance = chain.schedule.betas()[t - 1], chain.level(t).sigma.square()
    v = beta * chain.level(t - 1).sigma.square() / variance
    law = beta.square() / (2 * v * (1 - beta) * variance)
    torch.testing.assert_close(noise_weight(chain, t), law, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_the_bound_lies_above_the_truth_and_comes_down_to_it() -> None:
    terms = []
    for num_steps in (30, 300):
        film = BoundFilm({"": StandardProcess(LinearSchedule(num_steps))}, num_points=200)
        (ring,) = film.rings.values()
        terms.append(film.terms(ring))
    coarse, fine = terms
    assert coarse.truth == fine.truth  # of the same points
    assert coarse.bound > fine.bound > fine.truth
    assert len(fine.steps) == len(fine.t) == 299
