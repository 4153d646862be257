"""Variational bound by pairwise conditionals x_s | x_t, x_0, along any falling grid.

Any process may be used: they form an inference family with the right marginals (as in DDIM, Song et
al. 2021). Where x_t is not Markov, as on the median chain, the family forgets what x_{t-1} still
knew, and the bound is looser than that of whole states.
"""

from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.level import Level
from ddpm_lightning.likelihood.bound import Bound
from ddpm_lightning.losses.bound import divergence
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess


class VariationalBound(Bound):
    """Bounds by pairwise conditionals, with the learned variance where the network has one."""

    def axis(self, process: GaussianProcess, floor: float) -> TimeAxis:
        return process.axis(floor)

    def observed(self, process: GaussianProcess, t: Tensor) -> Level:
        return process.level(t)

    def step_nats(
        self, process: GaussianProcess, s: Tensor, t: Tensor, x_0: Tensor, estimate: Estimate
    ) -> Tensor:
        return divergence(process, s, t, x_0, estimate)
