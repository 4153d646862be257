"""The variational bound: its terms, and the losses that are made of them."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.losses.bound import discretised_nats, divergence, step_nats
from ddpm_lightning.objectives.epsilon import MAX_RATIO
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.losses.shared import FLOOR, data_and_noise, denoiser
from tests.problems import (
    NOISES,
    PROCESSES,
    Gaussian,
    ThirdOrderProcess,
    build,
    denoise,
    every_case,
    every_chain,
    every_noise,
    loss_at,
    noises,
    process_under,
)

every_process = pytest.mark.parametrize("process_type", [*PROCESSES, ThirdOrderProcess])


def steps_down(process: GaussianProcess) -> tuple[Tensor, Tensor]:
    """All usable s and t, s the neighbour of t on the side of data, without the step to data."""
    axis = process.axis(FLOOR)
    t = axis.at_log_snr(process.log_snr(torch.arange(1, process.num_steps + 1))).unique()
    s = axis.before(t)
    return s[s > 0], t[s > 0]


def term(
    process: GaussianProcess, s: Tensor, t: Tensor, x_0: Tensor, network: Denoiser, e: Tensor
) -> float:
    """One term of the bound in nats per value, written out with textbook distributions."""
    x_t = process.diffuse(x_0, t, e)
    estimate = denoise(network, x_t, t).detach()
    if s > 0:
        exact, std = process.condition(x_0, x_t, s, t)
        model, _ = process.condition(estimate, x_t, s, t)
        return float(kl_divergence(Normal(exact, std), Normal(model, std)).mean())
    alpha, sigma, _ = process.level(t)
    decoder = Normal(estimate, sigma / alpha)
    high = torch.where(x_0 > 0.999, 1.0, decoder.cdf(x_0 + 1 / 255))
    low = torch.where(x_0 < -0.999, 0.0, decoder.cdf(x_0 - 1 / 255))
    return -float((high - low).clamp(min=1e-12).log().mean())


@every_noise
@every_chain
def test_the_mean_of_vlb_over_all_usable_steps_is_the_sum_of_the_bounds_terms(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 20)
    network, loss = denoiser(process, "velocity"), build("loss", "vlb")
    t = process.axis(FLOOR).steps  # type: ignore[attr-defined]
    x_0, e = data_and_noise(1)
    x_0, e = x_0.expand(len(t), *x_0.shape[1:]), e.expand(len(t), *e.shape[1:])
    losses = loss_at(loss, network, x_0, t, e).detach()
    path = [0, *t.tolist()]
    terms = [
        term(process, torch.tensor([a]), torch.tensor([b]), x_0[:1], network, e[:1])
        for a, b in pairwise(path)
    ]
    # A variance of 1e-3 is a difference of numbers of order one: 1e-13 of it.
    assert float(losses.mean()) == pytest.approx(sum(terms), rel=1e-10)
    for actual, expected in zip(losses / len(t), terms, strict=True):
        assert float(actual) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("noise", noises())
@pytest.mark.parametrize("name", ["uniform_t", "stratified"])
@every_chain
def test_training_draws_every_term_of_the_bound_equally_often(
    process_type: type[GaussianProcess], name: str, noise: str
) -> None:
    """So that the expectation of vlb over what is drawn is the bound: every usable step, and none
    else, in a batch of 4, each draw at n even fractions, n the number of steps.
    """
    process = process_under(process_type, noise)
    steps = process.axis(FLOOR).steps  # type: ignore[attr-defined]
    sampling, place = build("times", name), torch.arange(4)
    uniform = (torch.arange(len(steps), dtype=torch.float64) + 0.5) / len(steps)
    t = torch.cat([sampling.draw(process, u.expand(4), place, 4, FLOOR) for u in uniform])
    assert torch.equal(t.sort().values, steps.repeat_interleave(4))


@pytest.mark.parametrize("name", ["vlb", "hybrid_vlb"])
@every_chain
def test_the_expectation_of_vlb_over_the_times_of_training_is_the_bound(
    process_type: type[GaussianProcess], name: str
) -> None:
    """Under hybrid noise, T = 50: with unusable steps as their neighbours it was 0.73 of it, on the
    median chain. Of hybrid_vlb what the weight of the bound adds.
    """
    process = process_under(process_type, "hybrid", 50)
    axis, num_outputs = process.axis(FLOOR), 1 if name == "vlb" else 2
    network = denoiser(process, "velocity", num_outputs)
    n = int(axis.num_steps)
    fraction = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = build("times", "stratified").times(process, fraction, FLOOR)
    x_0, e = (value.expand(n, *value.shape[1:]) for value in data_and_noise(1))
    weights = {"vlb_weight": 1.0} if name == "hybrid_vlb" else {}
    losses = loss_at(build("loss", name, **weights), network, x_0, t, e)
    if name == "hybrid_vlb":
        losses = losses - loss_at(build("loss", "simple"), network, x_0, t, e)
    s = axis.before(t)
    estimate = network.estimate_at(process.diffuse(x_0, t, e), process.level(t))
    bound = step_nats(Gaussian(process, 0.0, 1.0), s, t, x_0, estimate).sum()
    torch.testing.assert_close(losses.mean(), bound, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
def test_vlb_of_the_continuous_process_is_that_of_any_grid_of_its_strides(noise: str) -> None:
    """Times k + u, u in (0, 1], down to data: the mean over them is the sum of their terms."""
    process = process_under(VariancePreservingProcess, noise, 1000)
    network, loss = denoiser(process, "velocity"), build("loss", "vlb")
    axis = process.axis(FLOOR)
    t = torch.arange(0.3, axis.last, axis.first, dtype=torch.float64)[:20]
    x_0, e = data_and_noise(1)
    losses = loss_at(loss, network, x_0.expand(20, *x_0.shape[1:]), t, e.expand(20, *e.shape[1:]))
    path = [0.0, *t.tolist()]
    terms = [
        term(process, steps[0], steps[1], x_0, network, e)
        for steps in torch.tensor(list(pairwise(path)), dtype=torch.float64)[..., None]
    ]
    expected = torch.tensor(terms, dtype=torch.float64)
    torch.testing.assert_close(losses / axis.num_steps, expected, rtol=1e-6, atol=1e-9)


@every_noise
def test_terms_of_the_standard_chain_are_those_of_ho_et_al(noise: str) -> None:
    """Eq. 12 with sigma_t^2 = the posterior variance: beta^2 / (2 var (1 - beta) (1 - abar)) |e -
    F|^2 for the epsilon objective.
    """
    process = process_under(StandardProcess, noise, 50)
    betas = process.schedule.betas()
    s, t = steps_down(process)
    pure = process.log_snr(t) > -2 * math.log(MAX_RATIO)  # below, F is not quite the noise
    s, t = s[pure & (t - s == 1)], t[pure & (t - s == 1)]
    x_0, e = data_and_noise(len(t))
    network = denoiser(process, "epsilon")
    x_t = process.diffuse(x_0, t, e)
    estimate = Estimate(denoise(network, x_t, t), None)
    abar = process.level(torch.arange(51)).alpha.square()
    beta = betas[t - 1]
    variance = (1 - abar[s]) / (1 - abar[t]) * beta
    factor = beta.square() / (2 * variance * (1 - beta) * (1 - abar[t]))
    expected = factor * network.loss(x_0, network.process.level(t), e)
    actual = divergence(process, s, t, x_0, estimate)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-12)


@every_case
def test_learned_variance_lies_between_the_conditional_and_the_upper_one(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """Shares 0, 1/2 and 1 against textbook divergences; 1/2 is the geometric mean."""
    process = process_under(process_type, noise, 20)
    s, t = steps_down(process)
    x_0, e = data_and_noise(len(t))
    x_t = process.diffuse(x_0, t, e)
    estimate = 0.9 * x_0 + 0.01
    exact, std = process.condition(x_0, x_t, s, t)
    mean, _ = process.condition(estimate, x_t, s, t)
    lower = process.conditional(s, t).variance
    upper = process.upper_variance(s, t)
    for share, variance in ((0.0, lower), (0.5, (lower * upper).sqrt()), (1.0, upper)):
        model = Normal(mean, variance.sqrt().reshape(-1, 1, 1, 1, 1))
        expected = kl_divergence(Normal(exact, std), model).flatten(1).mean(1)
        shares = Estimate(estimate, torch.full_like(x_0, share))
        actual = divergence(process, s, t, x_0, shares)
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-12)
    unlearned = divergence(process, s, t, x_0, Estimate(estimate, None))
    shares = Estimate(estimate, torch.zeros_like(x_0))
    torch.testing.assert_close(unlearned, divergence(process, s, t, x_0, shares))


@every_process
def test_a_perfect_estimate_costs_nothing_but_its_variance(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 20)
    s, t = steps_down(process)
    x_0, _ = data_and_noise(len(t))
    assert (divergence(process, s, t, x_0, Estimate(x_0, None)) == 0).all()
    wrong = Estimate(x_0, torch.ones_like(x_0))
    assert (divergence(process, s, t, x_0, wrong) > 0).all()


@pytest.mark.parametrize("estimate", [-1.3, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("std", [0.002, 0.1, 30.0])
def test_the_decoders_probabilities_of_all_8_bit_values_add_up_to_1(
    estimate: float, std: float
) -> None:
    values = torch.arange(256, dtype=torch.float64)[:, None] / 127.5 - 1
    nats = discretised_nats(values, torch.full_like(values, estimate), torch.tensor(std).double())
    assert float((-nats).exp().sum()) == pytest.approx(1, rel=1e-12)


def test_a_decoder_of_little_noise_is_sure_of_the_right_value_and_finite_for_a_wrong_one() -> None:
    """Half a bin is 1.96 std of 0.002: 95 % for values inside, 97.5 % for those at the ends."""
    x_0 = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64)
    std = torch.tensor(0.002, dtype=torch.float64)
    right = float(discretised_nats(x_0, x_0, std))
    assert right == pytest.approx(-(2 * math.log(0.975) + math.log(0.95)) / 3, abs=1e-3)
    wrong = float(discretised_nats(x_0, 0.5 - x_0, std))
    # A Gaussian's tail: distances of 2.5, 0.5, 1.5 less half a bin, in std, squared and halved.
    tails = [((d - 1 / 255) / 0.002) ** 2 / 2 for d in (2.5, 0.5, 1.5)]
    assert wrong == pytest.approx(sum(tails) / 3, rel=1e-3)


@every_process
def test_step_nats_takes_the_divergence_above_data_and_the_decoder_at_data(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 20)
    s, t = torch.tensor([0, 3, 0]), torch.tensor([1, 5, 2])
    x_0, _ = data_and_noise(3)
    estimate = Estimate(0.9 * x_0, None)
    actual = step_nats(Gaussian(process, 0.0, 1.0), s, t, x_0, estimate)
    alpha, sigma, _ = process.level(t)
    decoder = discretised_nats(x_0, estimate.x_0, sigma / alpha)
    kl = divergence(process, s[1:2], t[1:2], x_0[1:2], Estimate(0.9 * x_0[1:2], None))
    torch.testing.assert_close(actual, torch.stack([decoder[0], kl[0], decoder[2]]))
