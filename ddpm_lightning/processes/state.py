"""States of a chain: the last p = `memory` values, which are Markov where x_t alone is not.

On the median chain the state is the pair (x_t, x_{t-1}). Its best linear estimate of x_0,

    y_t = a' S^-1 X_t / q_t ~ N(x_0, 1 / q_t),   q_t = a' S^-1 a,

has a signal-to-noise ratio q_t that never rises along the chain (a: the state's alphas, S its
covariance, both given x_0).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess

TINY = 1e-300
SINGULAR = 1e-13  # of an eigenvalue, relative to the largest: the state repeats itself there


class StateLaw(NamedTuple):
    """The law X_t | x_0 ~ N(signal x_0, covariance): (.., p), (.., p, p), float64, newest first."""

    signal: Tensor
    covariance: Tensor

    def snr(self) -> Tensor:
        """Return q_t (..,), the signal-to-noise ratio: infinite where the state gives x_0 away."""
        values, vectors = torch.linalg.eigh(self.covariance)
        shares = (vectors.mT @ self.signal[..., None])[..., 0].square()
        noiseless = values <= SINGULAR * values[..., -1:].clamp(min=TINY)
        known = torch.where(shares > SINGULAR, torch.inf, 0.0)
        snr: Tensor = torch.where(noiseless, known, shares / values.clamp(min=TINY)).sum(-1)
        return snr

    def estimate_weights(self) -> Tensor:
        """Return S^-1 a / q (p,), which multiplies X_t to give y_t."""
        inverse: Tensor = torch.linalg.pinv(self.covariance, hermitian=True, rtol=SINGULAR)
        w = inverse @ self.signal
        return w / (w @ self.signal)


def state_law(process: GaussianProcess, t: Tensor) -> StateLaw:
    """Return the law of X_t, for integer times t (..,)."""
    times = _state_times(process, t)
    return StateLaw(
        process.level(times).alpha, process.covariance(times[..., :, None], times[..., None, :])
    )


class StateConditional(NamedTuple):
    """The Gaussian X_s | X_t, x_0 ~ N(of_state X_t + of_x_0 x_0, root root')."""

    of_state: Tensor  # (p, p)
    of_x_0: Tensor  # (p,)
    root: Tensor  # (p, p)


def state_conditional(process: GaussianProcess, s: Tensor, t: Tensor) -> StateConditional:
    """Return the law of the state at s given x_0 and the state at t > s: exact for the chain."""
    here, there = state_law(process, t), state_law(process, s)
    cross = process.covariance(_state_times(process, s)[:, None], _state_times(process, t))
    gain = cross @ torch.linalg.pinv(here.covariance, hermitian=True, rtol=SINGULAR)
    values, vectors = torch.linalg.eigh(there.covariance - gain @ cross.mT)
    root = vectors * values.clamp(min=0).sqrt()
    return StateConditional(gain, there.signal - gain @ here.signal, root)


def _state_times(process: GaussianProcess, t: Tensor) -> Tensor:
    return (t[..., None] - torch.arange(process.memory)).clamp(min=0)
