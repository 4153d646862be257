"""Laws of chains under any betas whatever, found by searching for a counterexample.

Under the schedules of conf/noise they are tested in test_laws.py, test_state.py and test_axis.py.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.state import state_conditional, state_law
from tests.problems import (
    CHAINS,
    FLOOR,
    Betas,
    FixedOutput,
    ThirdOrderProcess,
    build,
    denoise,
    options,
)

pytestmark = pytest.mark.slow

search = settings(deadline=None, derandomize=True, max_examples=50, database=None)

# Steps without noise count, and those that keep 1e-3 of their input; between 0 and 1e-4 no schedule
# of 30 steps has any.
beta = st.one_of(st.just(0.0), st.floats(1e-4, 0.999))
betas = st.lists(beta, min_size=1, max_size=30).filter(any)
chain = st.builds(
    lambda kind, values: kind(Betas(values)),
    st.sampled_from([*CHAINS, ThirdOrderProcess]),
    betas,
)
standard = betas.map(lambda values: StandardProcess(Betas(values)))


def all_pairs(process: AutoregressiveProcess) -> tuple[Tensor, Tensor]:
    """s and t of all 0 <= s < t <= T."""
    t, s = torch.tril_indices(process.num_steps + 1, process.num_steps + 1, offset=-1)
    return s, t


@search
@given(chain)
def test_total_mean_and_variance_over_x_t_are_those_of_x_s(process: AutoregressiveProcess) -> None:
    s, t = all_pairs(process)
    (alpha_s, sigma_s, _), (alpha_t, sigma_t, _) = process.level(s), process.level(t)
    of_x_t, of_x_0, variance = process.conditional(s, t)
    torch.testing.assert_close(of_x_t * alpha_t + of_x_0, alpha_s, rtol=1e-12, atol=1e-13)
    total = (of_x_t * sigma_t).square() + variance
    torch.testing.assert_close(total, sigma_s.square(), rtol=1e-12, atol=1e-13)


@search
@given(standard)
def test_conditioning_the_markov_chain_step_by_step_is_conditioning_at_once(
    process: StandardProcess,
) -> None:
    """The tower property, for all r < s < t: x_r | x_s, x_0 averaged over x_s | x_t, x_0."""
    times = torch.combinations(torch.arange(process.num_steps + 1), 3)
    if not len(times):
        return
    r, s, t = times.T
    first, second = process.conditional(s, t), process.conditional(r, s)
    direct = process.conditional(r, t)
    of_x_t = second.of_x_t * first.of_x_t
    of_x_0 = second.of_x_t * first.of_x_0 + second.of_x_0
    variance = second.of_x_t.square() * first.variance + second.variance
    # Gains are below 1e2 (a step may keep 1e-3 of its input), coefficients are exact to 1e-16.
    torch.testing.assert_close(of_x_t, direct.of_x_t, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(of_x_0, direct.of_x_0, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(variance, direct.variance, rtol=1e-10, atol=1e-12)


@search
@given(chain)
def test_reverse_steps_of_states_keep_the_law_of_the_chain(process: AutoregressiveProcess) -> None:
    for t in range(1, process.num_steps + 1):
        s_, t_ = torch.tensor(t - 1), torch.tensor(t)
        here, there = state_law(process, t_), state_law(process, s_)
        step = state_conditional(process, s_, t_)
        mean = step.of_state @ here.signal + step.of_x_0
        torch.testing.assert_close(mean, there.signal, rtol=1e-9, atol=1e-9)
        total = step.of_state @ here.covariance @ step.of_state.T + step.root @ step.root.T
        torch.testing.assert_close(total, there.covariance, rtol=1e-9, atol=1e-9)


@search
@given(chain)
def test_by_way_of_the_origin_is_the_same_as_directly(process: AutoregressiveProcess) -> None:
    s, t = all_pairs(process)
    first, second = process.to_origin(t), process.from_origin(s, t)
    direct = process.conditional(s, t)
    of_x_t = second.of_x_t * first.of_x_t
    variance = second.of_x_t.square() * first.variance + second.variance
    torch.testing.assert_close(of_x_t, direct.of_x_t, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(variance, direct.variance, rtol=1e-10, atol=1e-12)


@search
@given(chain)
def test_covariances_are_positive_semidefinite(process: AutoregressiveProcess) -> None:
    t = torch.arange(process.num_steps + 1)
    covariance = process.covariance(t[:, None], t)
    assert torch.linalg.eigvalsh(covariance).min() > -1e-14


@search
@given(chain)
def test_signal_falls_from_1_and_variance_stays_within_1(process: AutoregressiveProcess) -> None:
    alpha, sigma, _ = process.level(torch.arange(process.num_steps + 1))
    assert ((alpha > 0) & (alpha <= 1 + 1e-14)).all()
    assert ((sigma >= 0) & (sigma <= 1 + 1e-14)).all()
    assert (alpha.square() + sigma.square() <= 1 + 1e-13).all()


@search
@given(chain)
def test_log_snr_of_the_state_never_rises(process: AutoregressiveProcess) -> None:
    """Infinite as long as the state gives x_0 away; then it falls to 1e-8: neighbours differ by
    1e-4 of their variance at least, which 1e-16 is 1e-12 of, over three dimensions.
    """
    t = torch.arange(process.num_steps + 1)
    log_snr = state_law(process, t).snr().log()
    infinite = log_snr.isinf()
    assert torch.equal(infinite.long().sort(descending=True).values, infinite.long())
    finite = log_snr[~infinite]
    assert (finite.diff() <= 1e-8 * finite[:-1].abs().clamp(min=1)).all()
    assert (finite >= process.log_snr(t)[~infinite] - 1e-8).all()


@search
@given(chain)
def test_the_variance_of_a_reverse_step_lies_between_0_and_the_upper_one(
    process: AutoregressiveProcess,
) -> None:
    s, t = all_pairs(process)
    lower, upper = process.conditional(s, t).variance, process.upper_variance(s, t)
    assert (lower >= 0).all()
    assert (lower <= upper + 1e-14).all()
    assert (lower <= process.level(s).sigma.square() + 1e-15).all()


@search
@given(chain)
def test_usable_steps_fall_in_log_snr(process: AutoregressiveProcess) -> None:
    axes = [process.axis(FLOOR)]
    if state_law(process, torch.tensor(process.num_steps)).snr().isfinite():
        axes.append(process.state_axis(FLOOR))
    for axis in axes:
        steps = axis.before(torch.arange(axis.first, axis.last + 1))
        assert (axis.log_snr(steps[steps > 0].unique()).diff() < 0).all()


@search
@given(chain, st.sampled_from(options("objective")), st.integers(0, 2**31))
def test_what_is_diffused_is_denoised_by_a_perfect_network(
    process: AutoregressiveProcess, objective: str, seed: int
) -> None:
    """The network's output is solved for, and its rounding scaled by c_out <= exp(10)."""
    t = torch.arange(1, process.num_steps + 1)
    generator = torch.Generator().manual_seed(seed)
    x_0, e = torch.randn(2, len(t), 3, generator=generator, dtype=torch.float64)
    x_t = process.diffuse(x_0, t, e)
    made = build("objective", objective)
    skip, one = (
        denoise(Denoiser(FixedOutput(output), process, made), x_t, t) for output in (0.0, 1.0)
    )
    perfect = Denoiser(FixedOutput((x_0 - skip) / (one - skip)), process, made)
    torch.testing.assert_close(denoise(perfect, x_t, t), x_0, rtol=0, atol=1e-10)
    assert (perfect.loss(x_0, perfect.process.level(t), e) < 1e-12).all()


@search
@given(betas)
def test_the_continuous_process_meets_the_chain_wherever_noise_follows(values: list[float]) -> None:
    chain, process = StandardProcess(Betas(values)), VariancePreservingProcess(Betas(values))
    noise_so_far = torch.tensor(values).cumsum(0) > 0
    follows = torch.tensor([*(value > 0 for value in values[1:]), True]) & noise_so_far
    t = follows.nonzero().flatten() + 1
    for value, expected in zip(process.level(t), chain.level(t), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
