"""Terms of the bound and weightings are those of the papers, written out as they give them.

The bound as in Nichol & Dhariwal 2021 (eq. 4 to 15), on the chain of Ho et al. 2020 with
abar_t = prod (1 - beta_t), in nats per value and float64.
"""

from collections.abc import Callable
from math import pi, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.losses.base import WeightedLoss
from ddpm_lightning.losses.bound import divergence, step_nats
from ddpm_lightning.losses.edm import EDMLoss
from ddpm_lightning.losses.min_snr import MinSNRLoss
from ddpm_lightning.losses.soft_min_snr import SoftMinSNRLoss
from ddpm_lightning.losses.vlb import VLBLoss
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.noise.linear import LinearSchedule
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.objectives.clean import CleanObjective
from ddpm_lightning.objectives.epsilon import EpsilonObjective
from ddpm_lightning.objectives.karras import KarrasObjective
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import Gaussian, loss_at

T = 1000
SCHEDULES = {
    "linear": LinearSchedule(T, 1e-4, 0.02, max_beta=0.999),
    "cosine": CosineSchedule(T, 0.008, max_beta=0.999),
}
SHAPE = (1, 2, 2, 3)  # of one clip
SHORT = StandardProcess(LinearSchedule(50, 1e-4, 0.018, max_beta=0.999))  # to log-SNR -10.4


def normal(*shape: int) -> Tensor:
    """Seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Answer(nn.Module):
    """A network that says the same to everything."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.output


def along(coefficient: Tensor) -> Tensor:
    """(B,) as it multiplies clips."""
    return coefficient.reshape(-1, 1, 1, 1, 1)


def bytes_as_values(x: Tensor) -> Tensor:
    """The nearest of 256 values in [-1, 1]."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


# The bound


def reverse_step(betas: Tensor, t: Tensor, x_0: Tensor, x_t: Tensor, share: Tensor) -> Normal:
    """q(x_{t-1} | x_t, x_0), eq. 10 to 12, but with the variance of eq. 15; t >= 2.

    beta~^(1 - share) beta^share: share 0 is the posterior itself.
    """
    alpha_bar = (1 - betas).cumprod(0)
    here, before, beta = (
        along(table) for table in (alpha_bar[t - 1], alpha_bar[t - 2], betas[t - 1])
    )
    mean = (before.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - here)
    beta_tilde = (1 - before) / (1 - here) * beta
    return Normal(mean, (share * beta.log() + (1 - share) * beta_tilde.log()).div(2).exp())


@pytest.mark.parametrize(
    ("share", "noise"),
    [*((share, "linear") for share in (None, 0.0, 1.0, "any")), ("any", "cosine")],
)
def test_divergence_is_that_of_the_reverse_steps(share: float | str | None, noise: str) -> None:
    """At all t from 2 on; without a learned variance the model's is beta~. Seed 0.

    1e-8: near the data the posterior variance is the difference of two numbers that share 4 digits.
    """
    process = StandardProcess(SCHEDULES[noise])
    t = torch.arange(2, T + 1)
    x_0, estimate, x_t, any_share = normal(4, len(t), *SHAPE)
    shares = torch.sigmoid(any_share) if share == "any" else torch.full_like(x_0, float(share or 0))
    betas = process.schedule.betas()
    true = reverse_step(betas, t, x_0, x_t, torch.zeros_like(x_0))
    model = reverse_step(betas, t, estimate, x_t, shares)
    ours = divergence(process, t - 1, t, x_0, Estimate(estimate, None if share is None else shares))
    expected = kl_divergence(true, model).flatten(1).mean(1)
    print(f"largest relative difference: {float((ours / expected - 1).abs().max()):.1e}")
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-12)


def exact_cdf(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / sqrt(2))) / 2


def tanh_cdf(z: Tensor) -> Tensor:
    """Their approximation, that of the GELU (Hendrycks & Gimpel 2016)."""
    return (1 + torch.tanh(sqrt(2 / pi) * (z + 0.044715 * z**3))) / 2


def bin_probability(
    cdf: Callable[[Tensor], Tensor], x_0: Tensor, mean: Tensor, std: Tensor
) -> Tensor:
    """Ho et al. 2020, eq. 13: of the bin 1/255 to both sides, open at the ends of the range."""
    above = torch.where(x_0 == 1, 1.0, cdf((x_0 + 1 / 255 - mean) / std))
    below = torch.where(x_0 == -1, 0.0, cdf((x_0 - 1 / 255 - mean) / std))
    return above - below


@pytest.mark.parametrize(
    ("noise", "t"), [("linear", 1), ("linear", 2), ("cosine", 10), ("linear", 100)]
)
def test_decoder_is_the_discretised_gaussian(noise: str, t: int) -> None:
    """All 256 values, up to 3 standard deviations from the estimate, one in a sample.

    The std is the noise left at t, sqrt((1 - abar) / abar). Theirs at t = 1 is that of the reverse
    step, sqrt(beta_1) if the variance is fixed and large: sqrt(1 - beta_1) times ours.
    """
    process = StandardProcess(SCHEDULES[noise])
    alpha_bar = (1 - process.schedule.betas()).cumprod(0)[t - 1]
    std = ((1 - alpha_bar) / alpha_bar).sqrt()
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    offsets = torch.linspace(-3, 3, 13, dtype=torch.float64)
    x_0 = values.repeat_interleave(len(offsets))[:, None]
    mean = x_0 + std * offsets.repeat(len(values))[:, None]
    steps = torch.zeros(len(x_0), dtype=torch.int64), torch.full((len(x_0),), t)
    ours = (-step_nats(Gaussian(process, 0.0, 1.0), *steps, x_0, Estimate(mean, None))).exp()
    exact, near = (bin_probability(cdf, x_0, mean, std)[:, 0] for cdf in (exact_cdf, tanh_cdf))
    print(f"largest: {float((ours / exact - 1).abs().max()):.1e}, from tanh", end=" ")
    print(f"{float((ours - near).abs().max()):.1e}")
    torch.testing.assert_close(ours, exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours, near, rtol=0, atol=1e-3)


def test_vlb_loss_over_all_steps_is_the_sum_of_the_terms() -> None:
    """L_0 + .. + L_{T-1} of Ho et al. 2020, eq. 5, for a network with learned variance; T = 50."""
    num_steps, betas = SHORT.num_steps, SHORT.schedule.betas()
    t = torch.arange(1, num_steps + 1)
    x_0 = bytes_as_values(normal(num_steps, *SHAPE) / 2)
    noise, epsilon, variance = normal(3, num_steps, *SHAPE).flip(0)
    output = torch.cat([noise + epsilon / 10, variance], dim=1)
    denoiser = Denoiser(Answer(output), SHORT, EpsilonObjective())
    ours = loss_at(VLBLoss(), denoiser, x_0, t, noise).mean()
    alpha_bar = along((1 - betas).cumprod(0))
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
    estimate = (x_t - (1 - alpha_bar).sqrt() * output[:, :1]) / alpha_bar.sqrt()
    share = torch.sigmoid(variance)
    later = slice(1, None)
    true = reverse_step(betas, t[later], x_0[later], x_t[later], torch.zeros_like(share[later]))
    model = reverse_step(betas, t[later], estimate[later], x_t[later], share[later])
    std = ((1 - alpha_bar[:1]) / alpha_bar[:1]).sqrt()
    decoder = -bin_probability(exact_cdf, x_0[:1], estimate[:1], std).log().mean()
    terms = kl_divergence(true, model).flatten(1).mean(1).sum() + decoder
    torch.testing.assert_close(ours, terms, rtol=1e-10, atol=0)


# Weightings

S_D = 0.5
GAMMA = 5.0
# What the network is asked for, as alpha, sigma, x_0 and the noise give it.
TARGETS: dict[str, tuple[Objective, Callable[..., Tensor]]] = {
    "x_0": (CleanObjective(), lambda alpha, sigma, x_0, noise: x_0),
    "noise": (EpsilonObjective(), lambda alpha, sigma, x_0, noise: noise),
    # Salimans & Ho 2022
    "v": (VelocityObjective(), lambda alpha, sigma, x_0, noise: alpha * noise - sigma * x_0),
    # Karras et al. 2022, eq. 8: (D - c_skip y) / c_out of y = x_0 + s noise
    "F": (
        KarrasObjective(),
        lambda alpha, sigma, x_0, noise: (
            (sigma / alpha * x_0 - S_D**2 * noise) / (S_D * (sigma**2 / alpha**2 + S_D**2).sqrt())
        ),
    ),
}


@pytest.mark.parametrize(
    ("loss", "target", "weight"),
    [
        # Hang et al. 2023
        (MinSNRLoss(GAMMA), "x_0", lambda snr: snr.clamp(max=GAMMA)),
        (MinSNRLoss(GAMMA), "noise", lambda snr: snr.clamp(max=GAMMA) / snr),
        (MinSNRLoss(GAMMA), "v", lambda snr: snr.clamp(max=GAMMA) / (snr + 1)),
        # Crowson et al. 2024: 1 / (s^2 + 1 / gamma) at s^2 = 1 / SNR
        (SoftMinSNRLoss(GAMMA), "x_0", lambda snr: 1 / (1 / snr + 1 / GAMMA)),
        (SoftMinSNRLoss(GAMMA), "noise", lambda snr: GAMMA / (snr + GAMMA)),
        (SoftMinSNRLoss(S_D**-2), "F", lambda snr: S_D**2 / snr / (1 / snr + S_D**2) ** 2),
        # Karras et al. 2022, table 1 and eq. 8
        (EDMLoss(), "x_0", lambda snr: (1 / snr + S_D**2) / (S_D**2 / snr)),
        (EDMLoss(), "F", torch.ones_like),
    ],
)
def test_weightings_are_those_of_the_papers(
    loss: WeightedLoss, target: str, weight: Callable[[Tensor], Tensor]
) -> None:
    """Loss = weight of the paper times the squared error of what the paper's network is asked."""
    t = torch.arange(1, SHORT.num_steps + 1)
    x_0, noise, output = normal(3, len(t), *SHAPE)
    alpha_bar = (1 - SHORT.schedule.betas()).cumprod(0)
    alpha, sigma = along(alpha_bar.sqrt()), along((1 - alpha_bar).sqrt())
    objective, asked = TARGETS[target]
    error = (output - asked(alpha, sigma, x_0, noise)).square().flatten(1).mean(1)
    denoiser = Denoiser(Answer(output), SHORT, objective)
    expected = weight(alpha_bar / (1 - alpha_bar)) * error
    torch.testing.assert_close(loss_at(loss, denoiser, x_0, t, noise), expected, rtol=1e-10, atol=0)
