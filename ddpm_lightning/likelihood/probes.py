"""Probes of Hutchinson's trace estimator: e with E[e e'] = I, so that E[e' A e] is A's trace."""

from abc import ABC, abstractmethod

from torch import Tensor


class Probe(ABC):
    """Makes e from normal noise, which has a generator of its own for each clip."""

    @abstractmethod
    def shape(self, noise: Tensor) -> Tensor:
        """Return e, in the shape of the noise."""


class GaussianProbe(Probe):
    """e is the noise."""

    def shape(self, noise: Tensor) -> Tensor:
        return noise


class RademacherProbe(Probe):
    """e is its sign: less variance, none at all where A is diagonal."""

    def shape(self, noise: Tensor) -> Tensor:
        return noise.sign()
