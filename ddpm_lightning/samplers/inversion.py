"""Inversion of DDIM: from clips to the noise that leads to them.

One step of the flow maps x_t to x_s = a x_t + b D(x_t), where a = sigma_s / sigma_t and
b = alpha_s - a alpha_t. The derivative of alpha_t D lies between 0 and 1, as far as the network is
a denoiser, that of the step between a and alpha_s / alpha_t; so that x_t <- x_t + c (x_s -
step(x_t)) contracts for c = 2 / (a + alpha_s / alpha_t), slowly where the two are far apart. That
is the first c. Each further one is, clip by clip, the inverse of the derivative along the last
change (Barzilai & Borwein 1988), held between the inverses of those bounds.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.tensors import combine

MAX_ITERATIONS = 200
LEAST_SLOPE = 0.01  # on the step to data, where a is 0


def invert(denoiser: Estimator, x: Tensor, times: Tensor, tolerance: float) -> Tensor:
    """Return x at times[0] from x at times[-1], against the falling times of a walk."""
    points = [Point.at(denoiser.process, t) for t in times.flip(0)]
    for there, here in pairwise(points):
        x = _solve(denoiser, x, here, there, tolerance)
    return x


def _solve(denoiser: Estimator, x_s: Tensor, here: Point, there: Point, tolerance: float) -> Tensor:
    level = here.level
    a, most = there.sigma / here.sigma, there.alpha / here.alpha
    b = there.alpha - a * here.alpha
    least = a or LEAST_SLOPE * most
    rate = torch.full((len(x_s), 1), 2 / (least + most), device=x_s.device, dtype=x_s.dtype)
    x = x_s / most
    change = rest = torch.zeros_like(x)
    for _ in range(MAX_ITERATIONS):
        before, rest = rest, x_s - combine(a, x, b, denoiser.estimate_at(x, level).x_0)
        slope = _slope(change, before - rest)
        rate = torch.where(slope.isfinite(), 1 / slope.clamp(least, most), rate)
        change = rate.reshape(-1, *[1] * (x.dim() - 1)) * rest
        x = x + change
        if change.abs().max() <= tolerance * x.abs().max():
            return x
    raise ValueError(
        f"inversion did not settle within {tolerance:g} at t={here.t.item()} "
        f"in {MAX_ITERATIONS} iterations; ask for more evaluations, or a greater tolerance"
    )


def _slope(change: Tensor, gain: Tensor) -> Tensor:
    """Return the gain per change (B, 1) along the change; NaN where there was none."""
    change, gain = change.reshape(len(change), -1), gain.reshape(len(gain), -1)
    return (change * gain).sum(1, keepdim=True) / change.square().sum(1, keepdim=True)
