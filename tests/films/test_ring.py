"""The ring's density, denoiser and score are one and the same law."""

import pytest
import torch

from ddpm_lightning.films.ring import VARIANCE, Ring, plane
from ddpm_lightning.level import Level
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import process_under

LEVELS = [Level.at(torch.tensor(log_snr)) for log_snr in (8.0, 2.0, -3.0)]
VARIANCE_EXPLODING = Level.of(*torch.tensor([1.0, 0.3], dtype=torch.float64))


@pytest.fixture
def ring() -> Ring:
    return Ring(process_under(StandardProcess, "cosine"))


@pytest.mark.parametrize("level", [*LEVELS, VARIANCE_EXPLODING])
def test_the_score_is_the_gradient_of_the_log_density(ring: Ring, level: Level) -> None:
    """By Tweedie's formula, so that the denoiser is E[x_0 | x] of this density."""
    x = plane(1.5, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(ring.log_density_at(x, level).sum(), x)
    torch.testing.assert_close(ring.score_at(x.detach(), level), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_densities_integrate_to_one_and_to_each_other(ring: Ring, level: Level) -> None:
    num, reach = 201, 6.0
    x, cell = plane(reach, num), 2 * reach / (num - 1)
    density = ring.log_density_at(x, level).exp().view(num, num)  # rows: the second coordinate
    torch.testing.assert_close(float(density.sum()) * cell**2, 1.0, rtol=1e-6, atol=0)
    along = ring.coordinate_density_at(x[:num, 0], level)
    torch.testing.assert_close(density.sum(0) * cell, along, rtol=1e-6, atol=1e-9)


def test_draws_have_the_moments_of_the_data(ring: Ring) -> None:
    x = ring.draw(num := 20_000, torch.Generator().manual_seed(0))
    error = 5 * (VARIANCE / num) ** 0.5  # five standard errors
    torch.testing.assert_close(x.mean(0), torch.zeros(2).double(), rtol=0, atol=error)
    torch.testing.assert_close(x.T.cov(), VARIANCE * torch.eye(2).double(), rtol=0, atol=error)
