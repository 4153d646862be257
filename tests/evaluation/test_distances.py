"""Distances between sets of features: known values, and what they are for one law."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import wasserstein_distance
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor

from ddpm_lightning.evaluation.distances import (
    Scale,
    floor,
    interval,
    polynomial_mmd,
    precision_recall_density_coverage,
    sliced_wasserstein,
    wasserstein_of_gaussians,
)

Draw = Callable[..., Tensor]


@pytest.fixture
def draw() -> Draw:
    """Draws features (n, d) of N(shift, 1), from one seed a test."""
    generator = torch.Generator().manual_seed(0)

    def normal(n: int, d: int, shift: float = 0.0) -> Tensor:
        return shift + torch.randn(n, d, generator=generator, dtype=torch.float64)

    return normal


def test_mmd_of_one_law_is_0_on_average(draw: Draw) -> None:
    values = torch.tensor([polynomial_mmd(draw(32, 8), draw(40, 8)) for _ in range(500)])
    assert abs(values.mean()) < 2 * values.std() / 500**0.5
    assert (values < 0).double().mean() > 0.3  # unbiased, so of both signs


def test_mmd_of_one_law_is_0_on_average_with_the_scale_of_other_clips(draw: Draw) -> None:
    def value() -> float:
        scale = Scale.of(draw(32, 8, shift=3.0))
        return polynomial_mmd(scale(draw(32, 8, shift=3.0)), scale(draw(32, 8, shift=3.0)))

    values = torch.tensor([value() for _ in range(500)])
    assert abs(values.mean()) < 2 * values.std() / 500**0.5


def test_mmd_equals_its_definition_by_sums_over_pairs(draw: Draw) -> None:
    x, y = draw(5, 3), draw(7, 3, shift=1.0)
    within = [
        sum(k[i, j] for i in range(len(k)) for j in range(len(k)) if i != j)
        / (len(k) ** 2 - len(k))
        for k in (polynomial_kernel(z, z, degree=3, coef0=1) for z in (x, y))
    ]
    between = polynomial_kernel(x, y, degree=3, coef0=1).mean()
    assert polynomial_mmd(x, y) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_mmd_of_shifted_normals_is_that_of_the_kernel(draw: Draw) -> None:
    """In one dimension, with moments m_k, MMD^2 = sum_k binom(3, k) (m_k(x) - m_k(y))^2."""
    shift = 0.5
    moments = [shift, shift**2, shift**3 + 3 * shift]  # those of N(shift, 1) less those of N(0, 1)
    exact = sum(math.comb(3, k) * m**2 for k, m in enumerate(moments, start=1))
    values = torch.tensor([polynomial_mmd(draw(64, 1, shift), draw(64, 1)) for _ in range(400)])
    assert abs(values.mean() - exact) < 3 * values.std() / 400**0.5


def test_scaled_training_features_have_mean_0_and_deviation_1_or_are_not_blown_up(
    draw: Draw,
) -> None:
    deviations = torch.tensor([1.0, 2.0, 0.5, 0.0, 0.01])
    train = 5 + draw(50, 5) * deviations
    scale = Scale.of(train)
    scaled = scale(train)
    assert scaled.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(
        scaled[:, :3].var(0, correction=0), torch.ones(3, dtype=torch.float64)
    )
    least = (train.var(0, correction=0).mean() / 100).sqrt()
    torch.testing.assert_close(scale.std[3:], least.expand(2))


def test_features_that_do_not_vary_are_centred_alone() -> None:
    train = torch.full((10, 2), 3.0, dtype=torch.float64)
    assert torch.equal(Scale.of(train)(train + 1), torch.ones_like(train))


def test_sliced_wasserstein_equals_scipy_in_one_dimension(draw: Draw) -> None:
    x, y = draw(30, 1), draw(41, 1, shift=0.3)
    expected = wasserstein_distance(x[:, 0], y[:, 0])
    assert sliced_wasserstein(x, y, num_projections=3) == pytest.approx(expected, rel=1e-12)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection(draw: Draw) -> None:
    """In d = 3 the mean |cos| between a vector and a random direction is 1/2."""
    x = draw(20, 3)
    y = x + torch.tensor([0.0, 0.0, 4.0])
    # 2000 directions: |cos| has deviation 0.29
    assert sliced_wasserstein(x, y, 2000) == pytest.approx(2.0, abs=5 * 4 * 0.29 / 2000**0.5)


def test_frechet_is_exact_for_the_moments_that_it_is_given(draw: Draw) -> None:
    """Whitened clips have mean 0 and covariance 1 exactly; A z + b has those of A and b."""
    z = draw(60, 3)
    z = z - z.mean(0)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(z.mT.cov()), z.mT, upper=False).mT
    scales, shift = torch.tensor([2.0, 0.5, 3.0]), torch.tensor([1.0, -2.0, 0.0])
    exact = shift.square().sum() + (scales - 1).square().sum()
    assert wasserstein_of_gaussians(z * scales + shift, z) == pytest.approx(float(exact), rel=1e-10)
    assert wasserstein_of_gaussians(z, z) == pytest.approx(0, abs=1e-12)


def test_density_and_coverage_of_one_law_are_their_expectations(draw: Draw) -> None:
    n, m, k, repeats = 24, 30, 3, 300
    values = torch.tensor(
        [precision_recall_density_coverage(draw(n, 4), draw(m, 4), k) for _ in range(repeats)]
    )
    missed = math.prod((m - j) / (n + m - j) for j in range(1, k + 1))
    for column, exact in ((2, 1.0), (3, 1 - missed)):
        error = values[:, column].std() / repeats**0.5
        assert abs(values[:, column].mean() - exact) < 3 * error


def test_lost_modes_cost_recall_and_foreign_clips_precision(draw: Draw) -> None:
    one, other = draw(100, 2), draw(100, 2, shift=50.0)
    lost = precision_recall_density_coverage(one[:50], torch.cat([one[50:], other[:50]]))
    assert lost.precision > 0.8
    assert lost.recall < 0.55
    assert lost.coverage < 0.55
    foreign = precision_recall_density_coverage(torch.cat([one[:50], other[:50]]), one[50:])
    assert foreign.precision < 0.55
    assert foreign.recall > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "shift", [pytest.param(0.0, marks=pytest.mark.long), 0.2]
)  # the variance falls with 1/n^2, and with 1/n
def test_intervals_of_mmd_cover_its_mean_nine_times_in_ten_and_more(
    draw: Draw, shift: float
) -> None:
    n, d, repeats = 128, 32, 40
    mean = torch.tensor([polynomial_mmd(draw(n, d, shift), draw(n, d)) for _ in range(1000)]).mean()
    intervals = [
        interval(polynomial_mmd, draw(n, d, shift), draw(n, d), num_subsamples=40)
        for _ in range(repeats)
    ]
    covered = sum(abs(i.value - mean) < 1.96 * i.standard_error for i in intervals)
    # 0.92 to 0.95 over 150; less three deviations of a binomial
    assert covered / repeats > 0.92 - 3 * (0.92 * 0.08 / repeats) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("distance", [sliced_wasserstein, wasserstein_of_gaussians])
def test_standard_errors_are_the_deviation_over_draws(
    draw: Draw, distance: Callable[[Tensor, Tensor], float]
) -> None:
    deviation = torch.tensor([distance(draw(64, 4, 0.5), draw(64, 4)) for _ in range(150)]).std()
    errors = torch.tensor(
        [
            interval(distance, draw(64, 4, 0.5), draw(64, 4), num_subsamples=40).standard_error
            for _ in range(15)
        ]
    )
    # the deviation of 150 draws is known to 6 %, the mean of 15 errors to 5 %
    assert float(errors.mean() / deviation) == pytest.approx(1, abs=0.25)


def test_a_bootstrap_would_bias_an_mmd_upward_and_subsamples_do_not(draw: Draw) -> None:
    x, y = draw(40, 8), draw(40, 8)
    generator = torch.Generator().manual_seed(1)
    doubled = [
        polynomial_mmd(*(z[torch.randint(40, (40,), generator=generator)] for z in (x, y)))
        for _ in range(200)
    ]
    halves = [
        polynomial_mmd(*(z[torch.randperm(40, generator=generator)[:20]] for z in (x, y)))
        for _ in range(200)
    ]
    value = polynomial_mmd(x, y)
    assert torch.tensor(doubled).mean() > value + 0.1
    assert abs(torch.tensor(halves).mean() - value) < 3 * torch.tensor(halves).std() / 200**0.5


def test_the_floor_of_an_mmd_is_0_and_as_wide_as_draws_of_one_law(draw: Draw) -> None:
    draws = torch.tensor([polynomial_mmd(draw(48, 8), draw(32, 8)) for _ in range(300)])
    real = floor(polynomial_mmd, draw(1000, 8), 48, 32)
    assert abs(real.mean) < 3 * float(draws.std()) / 200**0.5
    low, high = draws.quantile(torch.tensor([0.025, 0.975])).tolist()
    assert real.high - real.low == pytest.approx(high - low, rel=0.3)  # of 200 splits, to 10 %


def test_fewer_clips_than_neighbours_are_refused(draw: Draw) -> None:
    with pytest.raises(ValueError, match="k=5 neighbours need more samples and clips, got 5 and 9"):
        precision_recall_density_coverage(draw(5, 2), draw(9, 2), k=5)
