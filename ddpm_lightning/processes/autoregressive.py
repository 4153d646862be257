"""AR(p) forward chains: x_t = sum_k w_{t,k} x_{t-k} + sqrt(beta_t) e_t; all before x_0 equal it.

The tables follow from the definition by recursion:

    alpha_t = sum_k w_{t,k} alpha_{t-k},                          alpha_0 = alpha_{-1} = .. = 1
    C[t, s] = sum_k w_{t,k} C[t-k, s]          (s < t),           C[0, .] = C[-1, .] = .. = 0
    C[t, t] = sum_k w_{t,k} C[t, t-k] + beta_t

A chain of your own is its weights:

    class Smooth(AutoregressiveProcess):
        def weights(self, r):
            return r[:, None] * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
"""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from ddpm_lightning.level import Level
from ddpm_lightning.noise.base import NoiseSchedule, check_betas
from ddpm_lightning.processes.axis import DiscreteAxis, TimeAxis
from ddpm_lightning.processes.base import Combination, GaussianProcess, Time
from ddpm_lightning.processes.state import state_law


class AutoregressiveProcess(GaussianProcess, ABC):
    """Derives a chain from its weights; a new one overrides `weights` alone."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__(schedule.num_steps)
        self.schedule = schedule
        self._betas = schedule.betas()
        check_betas(self._betas, self.num_steps)
        self.num_zero_betas = int((self._betas == 0).sum())
        self._weights = self.weights((1 - self._betas).sqrt())
        shape = tuple(self._weights.shape)
        if len(shape) != 2 or shape[0] != self.num_steps or shape[1] < 1:
            raise ValueError(f"weights must be (T, p) with T = {self.num_steps}, got {shape}")
        self.memory = self._weights.shape[1]
        self._alpha, variance = _marginals(self._weights, self._betas)
        self._sigma = variance.sqrt()
        self._state_axes: dict[float, TimeAxis] = {}

    @abstractmethod
    def weights(self, r: Tensor) -> Tensor:
        """Return w (T, p) for r_t = sqrt(1 - beta_t) (T,); column k - 1 multiplies x_{t-k}."""

    def level(self, t: Time) -> Level:
        t = self._step(t)
        return Level.of(self._alpha[t], self._sigma[t])

    def covariance(self, s: Time, t: Time) -> Tensor:
        return self._covariances[self._step(s), self._step(t)]

    def origin(self, t: Time) -> Combination:
        t = self._step(t)
        w = self._weights[t - 1]
        times = tuple((t - k).clamp(min=0) for k in range(1, self.memory + 1))
        return Combination(times, tuple((w / w.sum(-1, keepdim=True)).unbind(-1)))

    def build_axis(self, floor: float) -> TimeAxis:
        return DiscreteAxis(self.log_snr(torch.arange(self.num_steps + 1)), floor)

    def state_axis(self, floor: float) -> TimeAxis:
        if floor not in self._state_axes:
            self._state_axes[floor] = self._build_state_axis(floor)
        return self._state_axes[floor]

    def _build_state_axis(self, floor: float) -> TimeAxis:
        snr = state_law(self, torch.arange(self.num_steps + 1)).snr()
        if snr.isinf().all():
            self.axis(floor)  # refuses a schedule without any noise
            raise ValueError(
                f"after {self.num_steps} steps the last {self.memory} values of this chain still "
                "hold x_0 itself, so that there is no prior of states; set noise.num_steps higher"
            )
        return DiscreteAxis(snr.log(), floor)

    @cached_property
    def _covariances(self) -> Tensor:
        """Compute C (T+1, T+1), on the CPU, when a walk first asks for it: training never does."""
        past = self.memory - 1  # entries before t = 0, all equal to x_0
        table = torch.zeros(2 * [self.num_steps + self.memory], dtype=torch.float64)
        for i in range(self.memory, len(table)):
            w = self._weights[i - self.memory].flip(0)  # oldest first, as in the slice before i
            recent = slice(i - self.memory, i)
            table[i, :i] = w @ table[recent, :i]
            table[:i, i] = table[i, :i]
            table[i, i] = w @ table[i, recent] + self._betas[i - self.memory]
        return table[past:, past:].contiguous()

    def _step(self, t: Time) -> Tensor:
        t = torch.as_tensor(t, device="cpu")
        step = t.long()
        if t.numel() and (step.min() < 0 or step.max() > self.num_steps or (step != t).any()):
            raise ValueError(f"t must be a whole number in 0..{self.num_steps}, got {t.tolist()}")
        return step


def _marginals(weights: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma^2 (T+1,), from the covariance of the last p states alone."""
    order = weights.shape[1]
    alpha, variance = [1.0], [0.0]
    signal = [1.0] * order  # newest first
    state = [[0.0] * order for _ in range(order)]
    for w, beta in zip(weights.tolist(), betas.tolist(), strict=True):
        row = [sum(w_k * c for w_k, c in zip(w, column, strict=True)) for column in state]
        newest = sum(w_k * c for w_k, c in zip(w, row, strict=True)) + beta
        signal = [sum(w_k * a for w_k, a in zip(w, signal, strict=True)), *signal[:-1]]
        kept = row[:-1]
        state = [[newest, *kept], *([c, *line[:-1]] for c, line in zip(kept, state, strict=False))]
        alpha.append(signal[0])
        variance.append(newest)
    return torch.tensor(alpha, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64)
