"""What a likelihood is: nats per value of clips under a denoiser's model, term by term."""

from abc import ABC, abstractmethod
from math import log, nan
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.samplers.noise import Generators

BIN_WIDTH = 2 / 255  # of one of 256 values in [-1, 1]


class Nats(NamedTuple):
    """Negative log-likelihood of clips in nats per value: the sum of named terms, each (B,)."""

    terms: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """(B,) nats per value."""
        return torch.stack(list(self.terms.values())).sum(0)

    @property
    def bits(self) -> Tensor:
        """(B,) bits per value, "bits/dim"."""
        return self.total / log(2)


class Likelihood(ABC):
    """Measures clips of any shape.

    Args:
        discrete: True for the probability of 8-bit values; False for the density of continuous
            ones, of which 8-bit data, all points, has no end.
    """

    def __init__(self, discrete: bool = True) -> None:
        self.discrete = discrete

    @abstractmethod
    def nats(self, denoiser: Denoiser, x_0: Tensor, generator: Generators = None) -> Nats:
        """Of clips x_0 (B, ...) in [-1, 1]; generators as for samplers."""


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of (N,) values and its standard error, NaN for a single one."""
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else nan
    return float(values.mean()), error


def gaussian_nats(x: Tensor, mean: Tensor | float, std: float) -> Tensor:
    """(B,) negative log-density of x (B, ...) under N(mean, std^2), nats per value."""
    squared = ((x - mean) / std).square().flatten(1).mean(1)
    return (squared + log(2 * torch.pi * std**2)) / 2
