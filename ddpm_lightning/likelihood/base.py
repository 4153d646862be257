"""What a likelihood is: nats per value of clips under a denoiser's model, term by term."""

from abc import ABC, abstractmethod
from math import log, nan
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.samplers.noise import Generators

BIN_WIDTH = 2 / 255  # of one of 256 values in [-1, 1]


class Nats(NamedTuple):
    """Negative log-likelihood of clips in nats per value: the sum of named terms, each (B,)."""

    terms: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """Return the sum of the terms (B,), in nats per value."""
        return torch.stack(list(self.terms.values())).sum(0)

    @property
    def bits(self) -> Tensor:
        """Return the total (B,) in bits per value, "bits/dim"."""
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
    def nats(self, denoiser: Estimator, x_0: Tensor, generator: Generators = None) -> Nats:
        """Return the terms for standardised clips x_0 (B, ...); generators as for samplers.

        They are those of values in [-1, 1], whatever clips are standardised by.
        """


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of (N,) values and its standard error, NaN for a single one."""
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else nan
    return float(values.mean()), error


def gaussian_nats(x: Tensor, mean: Tensor | float, std: float) -> Tensor:
    """Return -log N(x; mean, std^2) (B,) for x (B, ...), in nats per value."""
    squared = ((x - mean) / std).square().flatten(1).mean(1)
    return (squared + log(2 * torch.pi * std**2)) / 2
