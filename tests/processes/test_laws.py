"""Laws of every process in conf/model; an AR(3) chain stands for a user's own."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from tests.problems import (
    CONTINUOUS,
    FLOOR,
    PROCESSES,
    Betas,
    ScheduledType,
    ThirdOrderProcess,
    build,
    every_case,
    process_under,
)

every_process = pytest.mark.parametrize("process_type", [*PROCESSES, ThirdOrderProcess])


def steps(process: GaussianProcess) -> Tensor:
    return torch.arange(process.num_steps + 1)


def pairs(num_steps: int) -> tuple[Tensor, Tensor]:
    """s and t of all 0 <= s < t <= num_steps."""
    t, s = torch.tril_indices(num_steps + 1, num_steps + 1, offset=-1)
    return s, t


@every_case
def test_data_is_the_process_at_time_0(process_type: type[GaussianProcess], noise: str) -> None:
    for num_steps in (1, 2, 3, 50):
        process = process_under(process_type, noise, num_steps)
        assert process.num_steps == num_steps
        alpha, sigma, _ = process.level(0)
        assert (float(alpha), float(sigma)) == (1.0, 0.0)
        assert (process.covariance(0, torch.tensor([0, 1, num_steps])) == 0).all()
        assert process.log_snr(0) == float("inf")
        assert process.prior_std == float(process.level(num_steps).sigma) > 0


@every_case
def test_tables_are_float64_and_positive_semidefinite(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 50)
    t = steps(process)
    covariance = process.covariance(t[:, None], t)
    assert covariance.dtype == process.level(t).alpha.dtype == torch.float64
    assert torch.equal(covariance, covariance.T)
    variance = process.level(t).sigma.square()
    torch.testing.assert_close(covariance.diagonal(), variance, rtol=1e-14, atol=1e-16)
    # The smallest eigenvalues are products of 1 - beta below round-off; 1e-14 is 50 steps of 2e-16,
    # of the largest variance where it explodes.
    assert torch.linalg.eigvalsh(covariance).min() > -1e-14 * covariance.max().clamp(min=1)


@every_case
def test_log_snr_is_that_of_the_marginal(process_type: type[GaussianProcess], noise: str) -> None:
    process = process_under(process_type, noise)
    alpha, sigma, _ = process.level(steps(process)[1:])
    log_snr = process.log_snr(steps(process)[1:])
    torch.testing.assert_close(log_snr, 2 * (alpha / sigma).log(), rtol=1e-12, atol=1e-12)


@every_case
def test_diffuse_draws_from_the_marginal(process_type: type[GaussianProcess], noise: str) -> None:
    process = process_under(process_type, noise, 50)
    x_0, e = torch.full((3, 1, 2, 2, 2), 0.5).double(), torch.full((3, 1, 2, 2, 2), -1.0).double()
    t = torch.tensor([1, 25, 50])
    alpha, sigma, _ = process.level(t)
    expected = (0.5 * alpha - sigma)[:, None, None, None, None].expand_as(x_0)
    torch.testing.assert_close(process.diffuse(x_0, t, e), expected, rtol=1e-15, atol=1e-15)


@every_case
def test_a_conditional_after_the_marginal_has_the_law_of_the_process(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """x_t ~ its marginal, then x_s | x_t, x_0: mean alpha_s x_0, variance sigma_s^2; all s < t."""
    process = process_under(process_type, noise, 12)
    s, t = pairs(12)
    (alpha_s, sigma_s, _), (alpha_t, sigma_t, _) = process.level(s), process.level(t)
    of_x_t, of_x_0, variance = process.conditional(s, t)
    torch.testing.assert_close(of_x_t * alpha_t + of_x_0, alpha_s, rtol=1e-12, atol=1e-14)
    total = (of_x_t * sigma_t).square() + variance
    torch.testing.assert_close(total, sigma_s.square(), rtol=1e-12, atol=1e-14)
    # The gain is what makes the covariance with x_t that of the process.
    torch.testing.assert_close(
        of_x_t * sigma_t.square(), process.covariance(s, t), rtol=1e-12, atol=1e-15
    )


@every_case
def test_condition_is_the_conditional_at_given_clips(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 12)
    x_0, x_t = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    s, t = torch.tensor([0, 3, 10]), torch.tensor([1, 9, 12])
    of_x_t, of_x_0, variance = process.conditional(s, t)
    mean, std = process.condition(x_0, x_t, s, t)
    expected = of_x_t[:, None] * x_t + of_x_0[:, None] * x_0
    torch.testing.assert_close(mean, expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(std, variance.sqrt()[:, None], rtol=1e-14, atol=0)


@every_case
def test_upper_variance_is_that_of_standard_normal_data(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """x_s | x_t when x_0 ~ N(0, 1): the conditional's variance, and what x_0 | x_t adds to it."""
    process = process_under(process_type, noise, 12)
    s, t = pairs(12)
    alpha, sigma, _ = process.level(t)
    _, of_x_0, variance = process.conditional(s, t)
    of_data = sigma.square() / (alpha.square() + sigma.square())  # Var(x_0 | x_t)
    upper = process.upper_variance(s, t)
    torch.testing.assert_close(upper, variance + of_x_0.square() * of_data, rtol=1e-11, atol=1e-14)
    assert (upper >= variance - 1e-15).all()


@every_case
def test_by_way_of_the_origin_is_the_same_as_directly(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """x_t -> u -> x_s has the law of x_s | x_t, x_0, for every s < t."""
    process = process_under(process_type, noise, 12)
    s, t = pairs(12)
    first, second = process.to_origin(t), process.from_origin(s, t)
    direct = process.conditional(s, t)
    of_x_t = second.of_x_t * first.of_x_t
    of_x_0 = second.of_x_t * first.of_x_0 + second.of_x_0
    variance = second.of_x_t.square() * first.variance + second.variance
    # Gains reach 2; differences of numbers of order one with errors of 1e-16.
    torch.testing.assert_close(of_x_t, direct.of_x_t, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(of_x_0, direct.of_x_0, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(variance, direct.variance, rtol=1e-11, atol=1e-13)


@every_case
def test_the_step_adds_fresh_noise_to_its_origin(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """alpha_t = r alpha_u, sigma_t^2 = r^2 Var(u) + beta_t: the origin is where the step starts.

    r^2 + beta_t = 1 where betas are the schedule's, which those of other scales turn into theirs.
    """
    process = process_under(process_type, noise, 12)
    t = steps(process)[1:]
    u = process.origin(t)
    alpha_u = sum(w * process.level(k).alpha for w, k in zip(u.weights, u.times, strict=True))
    variance_u = sum(
        w * v * process.covariance(j, k)
        for w, j in zip(u.weights, u.times, strict=True)
        for v, k in zip(u.weights, u.times, strict=True)
    )
    alpha, sigma, _ = process.level(t)
    r = alpha / alpha_u
    assert (r <= 1 + 1e-14).all()
    beta = sigma.square() - r.square() * variance_u
    assert (beta >= -1e-15 * sigma.square()).all()
    if process_type is VariancePreservingProcess or process_type not in CONTINUOUS:
        torch.testing.assert_close(r.square() + beta, torch.ones(12).double(), rtol=1e-12, atol=0)


@every_case
def test_shortest_chains_return_to_their_data(
    process_type: type[GaussianProcess], noise: str
) -> None:
    x_0, x_t = torch.tensor([[0.3]]), torch.tensor([[2.0]])
    for num_steps in (1, 2, 3):
        process = process_under(process_type, noise, num_steps)
        for t in range(1, num_steps + 1):
            mean, std = process.condition(x_0, x_t, 0, t)
            assert torch.equal(mean, x_0)
            assert (std == 0).all()
            for s in range(1, t):
                assert all(value.isfinite().all() for value in process.condition(x_0, x_t, s, t))
            assert process.upper_variance(0, t) >= 0
            assert process.to_origin(t).variance >= 0


@every_case
def test_informative_times_end_at_the_log_snr_floor(
    process_type: type[GaussianProcess], noise: str
) -> None:
    fraction = torch.linspace(0, 1 - 1e-12, 4001, dtype=torch.float64)
    for num_steps in (1, 2, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        t = process.informative_time(fraction, FLOOR)
        assert ((t > 0) & (t <= num_steps)).all()
        assert process.log_snr(t.min()) < float("inf")
        last = t.max()
        before = torch.arange(1, int(last.ceil()))
        assert (process.log_snr(before) > FLOOR).all()
        end = process.log_snr(last)
        assert last == num_steps or end <= FLOOR + 1e-9


@every_process
def test_results_have_the_dtype_of_x_and_coefficients_are_float64(
    process_type: type[GaussianProcess],
) -> None:
    """One rounding to the dtype for each of the two products and their sum, within its range, which
    a variance that explodes under hybrid noise leaves below the floor; seed 0.
    """
    process = process_under(process_type, "hybrid", 50)
    drawn = torch.randn(2, 4, 1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([2, 7, 20, 50])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x_0, x_t = drawn.to(dtype)
        mean, std = process.condition(x_0, x_t, t - 1, t)
        noisy = process.diffuse(x_0, t, x_t)
        assert mean.dtype == std.dtype == noisy.dtype == dtype
        assert {c.dtype for c in process.conditional(t - 1, t)} == {torch.float64}
        exact_mean, exact_std = process.condition(x_0.double(), x_t.double(), t - 1, t)
        exact_noisy = process.diffuse(x_0.double(), t, x_t.double())
        tolerance = 4 * torch.finfo(dtype).eps
        for value, exact in ((mean, exact_mean), (std, exact_std), (noisy, exact_noisy)):
            within = exact.abs() < torch.finfo(dtype).max
            scale = exact[within].abs().max().clamp(min=1)
            error = (value.double() - exact)[within].abs().max()
            assert error <= tolerance * 4 * scale  # |x| < 4


@every_process
def test_times_may_be_numbers_or_tensors(process_type: type[GaussianProcess]) -> None:
    """With one time for all samples, two products are rounded as one: 2e-7 of order one."""
    process = process_under(process_type, "linear", 10)
    x = torch.ones(2, 1, 1, 1, 1)
    for s, t in ((0, 1), (3, 7)):
        s_one, t_one = torch.tensor(s), torch.tensor(t)
        s_each, t_each = torch.tensor([s, s]), torch.tensor([t, t])
        assert torch.equal(process.diffuse(x, t, x), process.diffuse(x, t_one, x))
        torch.testing.assert_close(process.diffuse(x, t, x), process.diffuse(x, t_each, x))
        mean, std = process.condition(x, 2 * x, s, t)
        assert torch.equal(mean, process.condition(x, 2 * x, s_one, t_one)[0])
        means, stds = process.condition(x, 2 * x, s_each, t_each)
        torch.testing.assert_close(mean, means)
        torch.testing.assert_close(std.expand_as(x), stds.expand_as(x))


@every_process
def test_conditioning_on_the_past_is_refused_in_one_line(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 10)
    x = torch.zeros(2, 1)
    for s, t in ((3, 3), (4, 3), ([1, 5], [2, 5])):
        for ask in (process.conditional, lambda s, t: process.condition(x, x, s, t)):
            with pytest.raises(ValueError, match="s must be less than t, got s=") as error:
                ask(torch.tensor(s), torch.tensor(t))
            assert f"s={s} and t={t}" in str(error.value).replace(".0", "")
            assert "\n" not in str(error.value)


@every_process
def test_clips_of_different_shapes_are_refused_in_one_line(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 10)
    x, y = torch.zeros(2, 1, 4, 8, 8), torch.zeros(2, 1, 4, 8, 1)
    with pytest.raises(ValueError, match=r"noise must be shaped like x_0, .*8, 8\), got .*8, 1\)"):
        process.diffuse(x, 3, y)
    with pytest.raises(ValueError, match=r"x_0 and x_t differ in shape: .*8, 8\) and .*8, 1\)"):
        process.condition(x, y, 1, 3)


BAD_BETAS = [
    ([0.1, 1.0], r"betas must lie in \[0, 1\), got 1;"),
    ([-0.1, 0.5], r"betas must lie in \[0, 1\), got -0.1;"),
    ([0.1, float("nan")], r"betas must lie in \[0, 1\), got nan;"),
]


@every_process
def test_betas_outside_the_unit_interval_are_refused_in_one_line(
    process_type: ScheduledType,
) -> None:
    for betas, message in BAD_BETAS:
        with pytest.raises(ValueError, match=message) as error:
            process_type(Betas(betas))
        assert "\n" not in str(error.value)


@every_process
def test_as_many_betas_as_steps_are_needed(process_type: ScheduledType) -> None:
    schedule = Betas([0.1, 0.2])
    schedule.num_steps = 3
    with pytest.raises(ValueError, match=r"betas must be one for each of 3 steps, got \(2,\)"):
        process_type(schedule)


@every_process
def test_a_schedule_of_what_is_not_a_number_is_refused(process_type: ScheduledType) -> None:
    for name, key in (("cosine", "offset"), ("sigmoid", "temperature"), ("karras", "rho")):
        with pytest.raises(ValueError, match=r"got nan|adds no noise"):
            process_type(build("noise", name, num_steps=5, **{key: float("nan")}))
