"""Solvers of dy / dphi = v(phi, y) that carry an integral along: fixed steps, or adaptive ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import atan, exp, log, tan

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

Velocity = Callable[[float, Tensor], tuple[Tensor, Tensor]]


class Solver(ABC):
    """Integrates y and, along with it, the velocity's second value."""

    @abstractmethod
    def solve(
        self, velocity: Velocity, y: Tensor, start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        """Return y at the angle `end`, and the integral (B,), for y (B, ...) at `start`.

        The angles are 0 < start < end < pi / 2.
        """


@dataclass(frozen=True)
class HeunSolver(Solver):
    """Applies the trapezium on num_steps intervals, even in log(sigma / alpha): two calls each."""

    num_steps: int = 100

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}; 100, say")

    def solve(
        self, velocity: Velocity, y: Tensor, start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        levels = np.linspace(log(tan(start)), log(tan(end)), self.num_steps + 1)
        angles = [atan(exp(level)) for level in levels]
        total = torch.zeros(len(y), device=y.device, dtype=torch.float64)
        for a, b in pairwise(angles):
            near, rate_near = velocity(a, y)
            far, rate_far = velocity(b, y + (b - a) * near)
            y = y + (b - a) / 2 * (near + far)
            total += (b - a) / 2 * (rate_near.double() + rate_far)
        return y, total


@dataclass(frozen=True)
class RungeKutta45Solver(Solver):
    """Applies SciPy's Dormand & Prince pair with step control, over log(sigma / alpha).

    Args:
        tolerance: of a step's error, absolute and relative; over all clips of a batch together.
    """

    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}; 1e-5 is customary")

    def solve(
        self, velocity: Velocity, y: Tensor, start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        def slope(level: float, flat: np.ndarray) -> np.ndarray:
            angle = atan(exp(level))
            state = torch.from_numpy(flat[: y.numel()]).reshape(y.shape)
            v, rate = velocity(angle, state.to(y))
            per_level = np.sin(2 * angle) / 2  # d angle / d level
            both = torch.cat([v.double().flatten(), rate.double()])
            change: np.ndarray = per_level * both.cpu().numpy()
            return change

        initial = np.concatenate([y.double().cpu().flatten().numpy(), np.zeros(len(y))])
        solution = solve_ivp(
            slope,
            (log(tan(start)), log(tan(end))),
            initial,
            rtol=self.tolerance,
            atol=self.tolerance,
        )
        if not solution.success:
            raise ValueError(f"the ODE could not be solved: {solution.message}")
        last = torch.from_numpy(solution.y[:, -1])
        return last[: y.numel()].reshape(y.shape).to(y), last[y.numel() :].to(y.device)
