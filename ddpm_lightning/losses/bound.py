"""Terms of the variational bound, for one reverse step each (Ho et al. 2020, eq. 5).

A step from t to s > 0 costs the Kullback-Leibler divergence of the model's Gaussian from the
process's own conditional x_s | x_t, x_0; the step to s = 0 costs the negative log-likelihood of
8-bit values under a discretised Gaussian around the estimate. For any process the pairwise
conditionals form an inference family with the right marginals (as in DDIM, Song et al. 2021), so
that the terms of any falling grid add up to a bound.
"""

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import DATA_STD
from ddpm_lightning.tensors import expand

TINY = 1e-30  # of a variance
HALF_BIN = 1 / 255  # of one of 256 values in [-1, 1]


def step_nats(denoiser: Estimator, s: Tensor, t: Tensor, x_0: Tensor, estimate: Estimate) -> Tensor:
    """Return the costs (B,) in nats per value of the steps from times t to s, both (B,)."""
    kl = divergence(denoiser.process, s, t, x_0, estimate)
    decoder = decoder_nats(denoiser, denoiser.process.level(t), x_0, estimate.x_0)
    return torch.where((s > 0).to(x_0.device), kl, decoder)


def divergence(
    process: GaussianProcess, s: Tensor, t: Tensor, x_0: Tensor, estimate: Estimate
) -> Tensor:
    """Return the divergence (B,), in nats per value, of the model's step from that of x_s | x_t,
    x_0.

    The model's variance is the conditional one, or, where it is learned, between that and the
    upper one in log scale (Nichol & Dhariwal 2021, eq. 15).
    """
    _, of_x_0, variance = process.conditional(s, t)
    lower = variance.clamp(min=TINY)
    error = (expand(of_x_0 / lower.sqrt(), x_0) * (x_0 - estimate.x_0)).square()
    if estimate.variance_share is None:
        return error.flatten(1).mean(1) / 2
    log_ratio = (process.upper_variance(s, t).clamp(min=TINY) / lower).log()
    log_ratio = estimate.variance_share * expand(log_ratio, x_0)
    kl = (log_ratio + (-log_ratio).exp() * (1 + error) - 1) / 2
    return kl.flatten(1).mean(1)


def decoder_nats(denoiser: Estimator, level: Level, x_0: Tensor, mean: Tensor) -> Tensor:
    """Return the negative log-probability (B,) of x_0's bytes under N(mean, sigma^2 / alpha^2).

    Args:
        x_0, mean: (B, C, ...), standardised.
        level: () or (B,), at which the mean was estimated.
    """
    statistics = denoiser.statistics
    ratio = (level.sigma / level.alpha).to(x_0.device, non_blocking=True)
    std = ratio * (statistics.std / DATA_STD)  # on the device, which a loss must not wait for
    return discretised_nats(statistics.to_values(x_0), statistics.to_values(mean), std)


def discretised_nats(x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the negative log-probability (B,) of x_0's 8-bit values, in nats per value.

    It is that of N(mean, std^2), std () or (B,); the lowest and the highest value take all beyond
    them (Ho et al. 2020, eq. 13).
    """
    x, mean = x_0.double(), mean.double()
    scale = expand(std, x)
    # Phi(high) - Phi(low) on the side where both are small: nothing cancels, nothing underflows.
    distance = (x - mean).abs()
    high = torch.special.log_ndtr((HALF_BIN - distance) / scale)
    low = torch.special.log_ndtr((-HALF_BIN - distance) / scale)
    inner = high + torch.log1p(-(low - high).exp())
    outward = torch.where(x > 0, mean - x, x - mean)
    edge = torch.special.log_ndtr((HALF_BIN + outward) / scale)
    log_probability = torch.where(x.abs() > 1 - HALF_BIN, edge, inner)
    return -log_probability.flatten(1).mean(1).to(x_0.dtype)
