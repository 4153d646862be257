"""Variational bound of the chain on whole states, (x_t, x_{t-1}) on the median one.

The states are Markov, so that the step from t to s costs (q_s - q_t) / 2 times the squared error of
the estimate, with q their signal-to-noise ratio. The network sees a state's best linear estimate of
x_0, as in `sampler=pair`. On a chain with p = 1, and for continuous processes, it is the
variational bound.
"""

from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.level import Level
from ddpm_lightning.likelihood.bound import Bound
from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.state import state_law


class PairBound(Bound):
    """Bounds by whole states: tighter where the chain remembers more than x_t."""

    def axis(self, process: GaussianProcess, floor: float) -> TimeAxis:
        return process.state_axis(floor)

    def observed(self, process: GaussianProcess, t: Tensor) -> Level:
        snr = state_law(process, t).snr()
        return Level.of((snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt())

    def step_nats(
        self, process: GaussianProcess, s: Tensor, t: Tensor, x_0: Tensor, estimate: Estimate
    ) -> Tensor:
        gained = state_law(process, s).snr() - state_law(process, t).snr()
        error = (x_0 - estimate.x_0).square().flatten(1).mean(1)
        return float(gained) / 2 * error
