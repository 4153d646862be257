"""Gaussian data whose likelihood under the exact denoiser is known in closed form."""

from math import e, log, pi

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from tests.problems import Gaussian

STD = 0.5
TRUTH = log(2 * pi * e * STD**2) / 2  # nats per value, on average over the data


def gaussian(process: GaussianProcess) -> Gaussian:
    return Gaussian(process, mean=0.0, std=STD)


def representative(num_clips: int, *shape: int) -> Tensor:
    """(num_clips, *shape), float64: the quantiles of N(0, STD^2) in random order, with exactly that
    variance, so that the mean log-density over them is the truth; seed 0.
    """
    num_values = num_clips * torch.Size(shape).numel()
    x = torch.special.ndtri((torch.arange(num_values, dtype=torch.float64) + 0.5) / num_values)
    x = STD * x / x.square().mean().sqrt()
    order = torch.randperm(num_values, generator=torch.Generator().manual_seed(0))
    return x[order].reshape(num_clips, *shape)


def density_nats(x: Tensor, variance: float) -> Tensor:
    """(B,) of x (B, ...) under N(0, variance), nats per value."""
    return (x.square() / variance + log(2 * pi * variance)).flatten(1).mean(1) / 2
