"""Pair: the chain's exact reverse on whole states, (x_t, x_{t-1}) on the median chain.

The pair is Markov where x_t alone is not. The network is called once a step, on the pair's best
linear estimate of x_0, which has the log-SNR of both together; that never rises. On a chain with
p = 1, and for continuous processes, it is ancestral sampling.
"""

import torch
from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.state import state_conditional, state_law
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Draw, Point, Walk


class PairSampler(Sampler):
    """Walks states (p, B, ...), newest first, of the p values that the chain depends on."""

    order = 1
    stochastic = True

    def axis(self, process: GaussianProcess, floor: float) -> TimeAxis:
        return process.state_axis(floor)

    def start(self, point: Point, process: GaussianProcess, draw: Draw) -> Tensor:
        covariance = state_law(process, point.t).covariance
        noise = torch.stack([draw() for _ in range(process.memory)])
        return _mixed(_root(covariance), noise)

    def diffuse(self, x_0: Tensor, point: Point, process: GaussianProcess, draw: Draw) -> Tensor:
        signal = state_law(process, point.t).signal
        return self.start(point, process, draw) + torch.stack([float(a) * x_0 for a in signal])

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        law = state_law(walk.process, here.t)
        snr = float(law.snr())
        # x_0 + noise / sqrt(snr), scaled to alpha^2 + sigma^2 = 1 for those who look at it
        alpha, sigma = (snr / (1 + snr)) ** 0.5, (1 / (1 + snr)) ** 0.5
        y = _mixed(alpha * law.estimate_weights()[None], x)[0]
        x_0 = walk.estimate(y, Point.bounded(here.t, alpha, sigma))
        if not there.sigma:
            return x_0
        of_state, of_x_0, root = state_conditional(walk.process, there.t, here.t)
        noise = torch.stack([walk.draw() for _ in range(walk.process.memory)])
        mean = _mixed(of_state, x) + torch.stack([float(b) * x_0 for b in of_x_0])
        return mean + _mixed(root, noise)


def _mixed(matrix: Tensor, state: Tensor) -> Tensor:
    """Return a matrix (q, p) times a state (p, ...)."""
    flat = state.reshape(len(state), -1)
    return (matrix.to(state, non_blocking=True) @ flat).reshape(-1, *state.shape[1:])


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root
