"""The denoiser's contract with its network, its process and its callers."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import MAX_LOG_SNR, Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.statistics import DATA_STD
from tests.problems import FixedOutput, build, denoise, every_example, options, process_under

SHAPE = (4, 1, 2, 3, 3)

every_objective = pytest.mark.parametrize("objective", options("objective"))


class Answers(nn.Module):
    """A network that is a function of its input and log-SNR."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.answer(x, log_snr)


def hardest() -> MedianProcess:
    """A denoiser sees levels alone: here they neither preserve variance nor fall in log-SNR from
    step to step, and alpha underflows float32.
    """
    return process_under(MedianProcess, "hybrid")


def amplifier(gain: Tensor) -> Answers:
    """A network that multiplies its input."""
    return Answers(lambda x, _: gain * x)


def make(process: GaussianProcess, objective: str = "velocity") -> Denoiser:
    """With a network that answers 0.3 and keeps what it saw."""
    return Denoiser(FixedOutput(0.3), process, build("objective", objective))


def received(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
    """Input and log-SNR that the network of `make` received last."""
    network = denoiser.network
    assert isinstance(network, FixedOutput)
    return network.x, network.log_snr


def normal(*shape: int) -> Tensor:
    """Seed 0, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@every_example
def test_network_sees_log_snr_held_within_its_bounds(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise)
    denoiser = make(process)
    t = torch.arange(process.num_steps + 1)
    denoise(denoiser, normal(len(t), 1, 1, 1, 1), t)
    _, seen = received(denoiser)
    assert seen.shape == t.shape
    expected = process.log_snr(t).clamp(-MAX_LOG_SNR, MAX_LOG_SNR).float()
    torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-6)  # float32
    assert seen.abs().max() <= MAX_LOG_SNR * (1 + 1e-6)


@every_example
def test_network_sees_inputs_of_unit_variance(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """Seed 0; the variance of n normals has a standard error of sqrt(2 / n)."""
    process = process_under(process_type, noise)
    denoiser = make(process)
    num_values = 40_000
    x_0, e = normal(2, 1, 1, 1, 200, 200)
    for t in (1, 250, 500, 1000):
        denoise(denoiser, process.diffuse(DATA_STD * x_0, t, e), t)
        x, _ = received(denoiser)
        assert float(x.var()) == pytest.approx(1, abs=5 * (2 / num_values) ** 0.5)


@every_objective
def test_loss_and_denoise_show_the_network_the_same_input(objective: str) -> None:
    process = process_under(MedianProcess, "hybrid")
    denoiser = make(process, objective)
    x_0, e = normal(2, *SHAPE)
    t = torch.tensor([1, 77, 500, 1000])
    denoiser.loss(x_0, process.level(t), e)
    x, log_snr = received(denoiser)
    denoise(denoiser, process.diffuse(x_0, t, e), t)
    again = received(denoiser)
    assert torch.equal(x, again[0])
    assert torch.equal(log_snr, again[1])


@every_objective
def test_a_time_may_be_a_number_or_a_tensor(objective: str) -> None:
    """With one time for all, c_skip x + c_out F is rounded once less: eps of its larger term."""
    denoiser = make(hardest(), objective)
    x = normal(*SHAPE)
    for t in (0, 1, 500, 1000):
        expected = denoise(denoiser, x, t)
        assert torch.equal(denoise(denoiser, x, torch.tensor(t)), expected)
        each = denoise(denoiser, x, torch.full((4,), t))
        terms = float(denoise(denoiser, x.sign() * 4, t).abs().max()) + 1  # |x| < 4
        torch.testing.assert_close(each, expected, rtol=0, atol=4e-7 * terms)


@every_objective
def test_the_loss_comes_with_the_estimate_that_denoise_gives(objective: str) -> None:
    process = hardest()
    denoiser = make(process, objective)
    x_0, e = normal(2, *SHAPE)
    t = torch.tensor([1, 77, 500, 1000])
    loss, estimate = denoiser.loss_and_estimate(x_0, process.level(t), e)
    assert torch.equal(loss, denoiser.loss(x_0, process.level(t), e))
    assert torch.equal(estimate.x_0, denoise(denoiser, process.diffuse(x_0, t, e), t))
    assert estimate.variance_share is None


@every_objective
def test_squared_error_per_loss_turns_the_loss_into_the_error_of_the_estimate(
    objective: str,
) -> None:
    process = hardest()
    denoiser = make(process, objective)
    x_0, e = normal(2, *SHAPE).double()
    t = torch.tensor([1, 60, 400, 1000])
    error = (denoise(denoiser, process.diffuse(x_0, t, e), t) - x_0).square().flatten(1).mean(1)
    predicted = denoiser.loss(x_0, process.level(t), e) * denoiser.squared_error_per_loss(
        process.level(t)
    )
    # Coefficients of up to exp(10) cancel in the estimate: 2e4 x 1e-16 of an error of order 1e-3.
    torch.testing.assert_close(predicted, error, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("objective", ["clean", "velocity", "karras"])
def test_score_is_the_gradient_of_the_log_density_of_gaussian_data(objective: str) -> None:
    """Data N(0, s_d^2): E[x_0 | x] = alpha s_d^2 / m x, and the score is -x / m, m the variance."""
    process = hardest()
    s_d = 0.5
    x = normal(*SHAPE).double()
    for t in (1, 60, 400, 900):
        alpha, sigma, _ = process.level(t)
        if abs(float(process.log_snr(t))) > MAX_LOG_SNR:
            continue
        m = alpha**2 * s_d**2 + sigma**2
        c_skip, c_out = build("objective", objective).scaling(Level.of(alpha, sigma))
        gain = (alpha * s_d**2 / m - c_skip) / c_out * m.sqrt()
        network = amplifier(gain)
        denoiser = Denoiser(network, process, build("objective", objective))
        score = denoiser.score_at(x, Level.of(alpha, sigma))
        # x - alpha D cancels to sigma^2 / m of x, and is divided by sigma^2: 1e-16 / 4e-5 at t = 1.
        torch.testing.assert_close(score, -x / m, rtol=1e-9, atol=1e-9)


@every_objective
def test_score_is_minus_the_noise_over_sigma_for_a_perfect_network(objective: str) -> None:
    """At a single x_0: the score of N(alpha x_0, sigma^2) at x_t is -e / sigma."""
    process = hardest()
    x_0, e = normal(2, *SHAPE).double()
    t = torch.tensor([10, 60, 200, 400])  # |log-SNR| < 20: nothing is held
    alpha, sigma, _ = process.level(t)
    x_t = process.diffuse(x_0, t, e)
    scaling = build("objective", objective).scaling(Level.of(alpha, sigma))
    c_skip, c_out = (value.reshape(4, 1, 1, 1, 1) for value in scaling)
    perfect = FixedOutput((x_0 - c_skip * x_t) / c_out)
    denoiser = Denoiser(perfect, process, build("objective", objective))
    score = denoiser.score_at(x_t, Level.of(alpha, sigma))
    torch.testing.assert_close(score, -e / sigma.reshape(4, 1, 1, 1, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", ["epsilon", "velocity"])
def test_denoising_score_matching_is_the_epsilon_loss_over_sigma_squared(objective: str) -> None:
    """Mean of |score + e / sigma|^2 (Vincent 2011), for a network that answers 0.3."""
    process = hardest()
    x_0, e = normal(2, *SHAPE).double()
    t = torch.tensor([5, 60, 200, 400])
    alpha, sigma, _ = process.level(t)
    denoiser = make(process, objective)
    score = denoiser.score_at(process.diffuse(x_0, t, e), process.level(t))
    matching = (score + e / sigma.reshape(4, 1, 1, 1, 1)).square().flatten(1).mean(1)
    # The error of the x_0 estimate is (sigma / alpha)^2 times that of the noise.
    error_of_noise = denoiser.loss(x_0, process.level(t), e) * denoiser.squared_error_per_loss(
        process.level(t)
    )
    error_of_noise *= (alpha / sigma).square()
    if objective == "epsilon":
        torch.testing.assert_close(
            error_of_noise, denoiser.loss(x_0, process.level(t), e), rtol=1e-12, atol=0
        )
    torch.testing.assert_close(matching, error_of_noise / sigma.square(), rtol=1e-8, atol=0)


@every_objective
def test_estimates_are_finite_in_float32_at_every_step(objective: str) -> None:
    process = hardest()
    t = torch.arange(process.num_steps + 1)
    assert denoise(make(process, objective), normal(len(t), 1, 1, 1, 1), t).isfinite().all()


def test_gradients_reach_the_network() -> None:
    process = process_under(StandardProcess, "linear")
    output = torch.zeros(SHAPE, requires_grad=True)
    denoiser = Denoiser(FixedOutput(output), process, build("objective", "velocity"))
    x_0, e = normal(2, *SHAPE)
    denoiser.loss(x_0, process.level(torch.full((4,), 500)), e).sum().backward()
    assert output.grad is not None
    assert output.grad.abs().min() > 0


@every_objective
def test_a_second_output_is_the_share_of_the_variance_and_leaves_the_estimate_as_it_is(
    objective: str,
) -> None:
    process = process_under(MedianProcess, "linear")
    x, t = normal(*SHAPE), torch.tensor([1, 77, 500, 1000])
    logits = normal(*SHAPE).flip(0)
    network = Answers(lambda x, _: torch.cat([torch.full_like(x, 0.3), logits], dim=1))
    two = Denoiser(network, process, build("objective", objective))
    estimate = two.estimate_at(x, process.level(t))
    assert torch.equal(estimate.x_0, denoise(make(process, objective), x, t))
    assert estimate.variance_share is not None
    torch.testing.assert_close(estimate.variance_share, torch.sigmoid(logits))


@pytest.mark.parametrize("channels", [3, 4])
def test_answers_of_another_shape_are_refused_in_one_line(channels: int) -> None:
    network = Answers(lambda x, _: x.repeat(1, channels, 1, 1, 1))
    denoiser = Denoiser(
        network, process_under(StandardProcess, "linear"), build("objective", "clean")
    )
    with pytest.raises(ValueError, match=r"must answer \(4, 1, 2, 3, 3\) with that shape") as error:
        denoise(denoiser, normal(*SHAPE), 3)
    assert f"twice the channels, got (4, {channels}, 2, 3, 3)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("second", [torch.inference_mode, torch.no_grad])
def test_denoising_without_gradients_may_take_turns_with_inference_mode(
    first: Callable[[], AbstractContextManager[None]],
    second: Callable[[], AbstractContextManager[None]],
) -> None:
    denoiser = make(process_under(StandardProcess, "linear"))
    x = normal(*SHAPE)
    expected = denoise(denoiser, x, 500)
    for mode in (first, second):
        with mode():
            torch.testing.assert_close(denoise(denoiser, x, 500), expected, rtol=0, atol=0)


@every_objective
def test_frames_have_the_estimates_and_losses_of_clips_at_their_levels(objective: str) -> None:
    """Levels from pure noise to pure data, of a network that answers 0.3."""
    denoiser = make(process_under(MedianProcess, "linear"), objective)
    log_snr = torch.tensor([[-50.0, 0.0], [5.0, -3.0], [torch.inf, 7.0], [1.0, 2.0]]).double()
    level, (x_0, e) = Level.at(log_snr), normal(2, *SHAPE)
    loss, estimate = denoiser.loss_and_estimate(x_0, level, e)
    assert loss.shape == log_snr.shape
    for frame in range(2):
        part = slice(frame, frame + 1)
        alone = Level.at(log_snr[:, frame])
        expected = denoiser.loss_and_estimate(x_0[:, :, part], alone, e[:, :, part])
        torch.testing.assert_close(loss[:, frame], expected[0])
        torch.testing.assert_close(estimate.x_0[:, :, part], expected[1].x_0)
    assert received(denoiser)[1].shape == (4,)
    denoiser.denoise_at(x_0, level)
    torch.testing.assert_close(received(denoiser)[1], log_snr.clamp(-40, 40).float())
