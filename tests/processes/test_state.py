"""Whole states of a chain, the last p values: their law, best estimate and reverse steps."""

import pytest
import torch

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.state import state_conditional, state_law
from tests.problems import (
    FLOOR,
    Betas,
    every_case,
    every_chain,
    every_noise,
    process_under,
)


@every_case
def test_the_state_holds_the_last_values_and_data_before_them(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 12)
    p = process.memory
    for t in (0, 1, 2, 7, 12):
        times = torch.tensor([max(t - k, 0) for k in range(p)])
        law = state_law(process, torch.tensor(t))
        assert torch.equal(law.signal, process.level(times).alpha)
        assert torch.equal(law.covariance, process.covariance(times[:, None], times))


@every_noise
def test_the_state_of_a_first_order_process_is_its_value(noise: str) -> None:
    """q_t = SNR; 1e-13: eigenvalues of a 1 x 1 matrix."""
    t = torch.arange(1, 13)
    for process_type in (StandardProcess, VariancePreservingProcess):
        process = process_under(process_type, noise, 12)
        snr = state_law(process, t).snr()
        torch.testing.assert_close(snr.log(), process.log_snr(t), rtol=1e-13, atol=1e-13)


@every_case
def test_log_snr_of_the_state_never_rises_and_is_no_lower_than_that_of_its_values(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """1e-9 of round-off: covariances of neighbours are nearly singular, 1e-6 of their size."""
    for num_steps in (1, 2, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        t = torch.arange(min(num_steps, 400) + 1)
        log_snr = state_law(process, t).snr().log()
        assert log_snr[0] == float("inf")
        finite = log_snr[log_snr.isfinite()]
        assert (finite.diff() <= 1e-9 * finite[:-1].abs().clamp(min=1)).all()
        assert (log_snr >= process.log_snr(t) - 1e-9).all()


def test_the_median_pair_never_loses_and_regains_what_its_values_do() -> None:
    process = process_under(MedianProcess, "hybrid")
    t = torch.arange(3, 401)  # the pairs before, one of them without noise, give x_0 away
    assert (process.log_snr(t).diff() > 0.1).sum() > 50
    assert (state_law(process, t).snr().log().diff() <= 1e-9).all()


def test_the_pair_of_the_first_step_gives_data_away() -> None:
    """(x_1, x_0): the second is x_0 itself."""
    law = state_law(process_under(MedianProcess, "linear", 12), torch.arange(3))
    assert law.snr().isfinite().tolist() == [False, False, True]


@every_noise
@every_chain
def test_the_best_estimate_is_unbiased_with_variance_1_over_q(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 12)
    for t in range(process.memory, 13):
        law = state_law(process, torch.tensor(t))
        if not law.snr().isfinite():
            continue  # hybrid: beta is 0 at times
        w = law.estimate_weights()
        assert float(w @ law.signal) == pytest.approx(1, rel=1e-9)
        variance = float(w @ law.covariance @ w)
        assert variance == pytest.approx(1 / float(law.snr()), rel=1e-6)
        # No other unbiased combination is better: the covariance with each is 1 / q.
        alone = law.covariance[0] @ w / law.signal[0]
        assert float(alone) == pytest.approx(variance, rel=1e-6)


@every_noise
@every_chain
def test_a_reverse_step_of_states_has_the_law_of_the_chain(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """X_t ~ its law, then X_s | X_t, x_0: mean a_s, covariance S_s, and Cov(X_s, X_t) as it is.

    Pseudo-inverses drop what is below 1e-13 of the largest eigenvalue, hence 1e-9.
    """
    process = process_under(process_type, noise, 12)
    for t in (1, 2, 3, 7, 12):
        for s in range(t):
            here, there = (state_law(process, torch.tensor(u)) for u in (t, s))
            step = state_conditional(process, torch.tensor(s), torch.tensor(t))
            mean = step.of_state @ here.signal + step.of_x_0
            torch.testing.assert_close(mean, there.signal, rtol=1e-9, atol=1e-9)
            total = step.of_state @ here.covariance @ step.of_state.T + step.root @ step.root.T
            torch.testing.assert_close(total, there.covariance, rtol=1e-9, atol=1e-9)


@every_noise
@every_chain
def test_states_are_markov(process_type: type[GaussianProcess], noise: str) -> None:
    """X_t -> X_s -> X_r is X_t -> X_r, in gain and covariance."""
    process = process_under(process_type, noise, 12)
    for r, s, t in ((1, 4, 7), (2, 3, 4), (0, 5, 12), (4, 10, 12)):
        r_, s_, t_ = map(torch.tensor, (r, s, t))
        first, second = state_conditional(process, s_, t_), state_conditional(process, r_, s_)
        direct = state_conditional(process, r_, t_)
        here = state_law(process, t_)
        # Gains are only determined on what X_t can be: they are compared there.
        gain = second.of_state @ first.of_state @ here.covariance
        expected = direct.of_state @ here.covariance
        torch.testing.assert_close(gain, expected, rtol=1e-8, atol=1e-9)
        variance = second.of_state @ first.root
        both = variance @ variance.T + second.root @ second.root.T
        torch.testing.assert_close(both, direct.root @ direct.root.T, rtol=1e-8, atol=1e-9)


@every_noise
@every_chain
def test_walks_of_states_need_as_many_steps_as_a_state_has_values(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """With fewer, the prior would hold x_0 itself; a walk of single values is always possible."""
    for num_steps in (1, 2, 3):
        process = process_under(process_type, noise, num_steps)
        assert process.axis(FLOOR).num_steps >= 1
        if num_steps >= process.memory:
            assert process.state_axis(FLOOR).num_steps >= 1
            continue
        message = f"after {num_steps} steps the last {process.memory}"
        with pytest.raises(ValueError, match=message) as error:
            process.state_axis(FLOOR)
        assert "\n" not in str(error.value)


def test_values_alone_of_the_median_chain_are_not_markov() -> None:
    """Which is why its states are pairs."""
    process = process_under(MedianProcess, "linear", 12)
    step, further = process.conditional(6, 7), process.conditional(5, 6)
    direct = process.conditional(5, 7)
    assert abs(float(further.of_x_t * step.of_x_t - direct.of_x_t)) > 0.1


def test_a_state_without_noise_is_data() -> None:
    process = MedianProcess(Betas([0.0, 0.0, 0.5]))
    law = state_law(process, torch.tensor(2))
    assert law.snr() == float("inf")
    step = state_conditional(process, torch.tensor(1), torch.tensor(2))
    assert torch.equal(step.root, torch.zeros(2, 2).double())
    torch.testing.assert_close(step.of_state @ law.signal + step.of_x_0, law.signal)
