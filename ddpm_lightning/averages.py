"""Averages of weights along training: laws, and averages of any length rebuilt afterwards.

After step n = 1, 2, .. an average becomes decay_n average + (1 - decay_n) weights. Under a power
law (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models"),

    decay_n = (1 - 1/n)^(gamma + 1),

the weights of step tau <= t count (gamma + 1) tau^gamma / t^(gamma + 1) in it: a window whose
standard deviation is a fixed share of the steps so far, its relative length. Such windows, of two
gammas at several steps, span close to any other: see combine.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Decay(ABC):
    """How much of an average a step keeps."""

    @abstractmethod
    def at(self, n: int) -> float:
        """Return decay_n in [0, 1), for optimizer step n = 1, 2, .."""


class ConstantDecay(Decay):
    """Keeps `decay` of the average at each step, but (1 + n) / (10 + n) as long as that is less.

    Args:
        decay: 0.999 averages over a thousand steps or so.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}; 0.999 suits long runs")
        self.decay = decay

    def at(self, n: int) -> float:
        return min(self.decay, (1 + n) / (10 + n))


class PowerDecay(Decay):
    """A window that grows with training.

    Args:
        relative_length: its standard deviation, as a share of the steps so far; 0.05 and 0.1 are a
            good pair to rebuild others from.
    """

    def __init__(self, relative_length: float) -> None:
        self.gamma = gamma_of(relative_length)

    def at(self, n: int) -> float:
        return float((1 - 1 / n) ** (self.gamma + 1))


def gamma_of(relative_length: float) -> float:
    """Return the power gamma whose window has this relative length.

    Its square is (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), so gamma is the root of a cubic.
    """
    if not 0 < relative_length < _LONGEST:
        raise ValueError(
            f"relative_length must lie in (0, {_LONGEST:.3f}), got {relative_length}; 0.1 is usual"
        )
    inverse = relative_length**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots[np.isreal(roots)].real.max())


_LONGEST = 12**-0.5  # gamma = 0: the mean of all steps


class Window(NamedTuple):
    """The window of a power-law average: its gamma, and the step after which it was taken."""

    gamma: float
    step: int


def combine(windows: Sequence[Window], wanted: Window) -> list[float]:
    """Return coefficients for averages of these windows so that their sum is closest to the wanted
    one.

    Least squares between the windows as functions of tau (the paper's sec. 3.2, algorithm 3); they
    are in closed form, so no weights are needed.
    """
    gram = np.array([[_overlap(a, b) for b in windows] for a in windows])
    target = np.array([_overlap(a, wanted) for a in windows])
    scale = np.sqrt(np.diag(gram))  # windows of early steps are high and narrow
    solution = np.linalg.lstsq(gram / np.outer(scale, scale), target / scale, rcond=1e-14)[0]
    return list(map(float, solution / scale))


def _overlap(a: Window, b: Window) -> float:
    """Return the integral of the product of two windows over tau in [0, the earlier step]."""
    first, last = (a, b) if a.step <= b.step else (b, a)
    powers = (a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1)
    return float(powers * (first.step / last.step) ** last.gamma / last.step)
