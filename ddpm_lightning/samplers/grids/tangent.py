"""Tangent grid: the best one for Gaussian data and a solver of order 1 (Sun et al. 2026).

For data N(m, s^2) the estimate at the noise level r = sigma / alpha is D = m + s^2 / (s^2 + r^2)
(y - m), y = x / alpha. With r = s tan(phi), a step of DDIM from r to r' multiplies y - m by

    (s^2 + r r') / (s^2 + r^2) = cos(phi) / cos(phi') cos(phi - phi'),

where the probability flow itself has cos(phi) / cos(phi'). So a walk leaves the standard deviation
prod_i cos(phi_i - phi_{i+1}) times that of the data, whatever the grid; log cos is concave, so that
of all grids with these ends the best is that of equal angles,

    r_i = s tan(i / n phi_n),   i = 0..n,   with cos(phi_n / n)^n of the deviation left.

Its angle ends at pi / 2 towards noise, so that it can start at the floor itself.
"""

from dataclasses import dataclass
from math import atan, exp

import torch
from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, ramp
from ddpm_lightning.statistics import DATA_STD


@dataclass(frozen=True)
class TangentGrid(Grid):
    """Spaces atan(sigma / (alpha std)) evenly; std is that of the data, or of what of it matters
    most, such as a principal component.
    """

    std: float = DATA_STD

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(
                f"std must be positive, got {self.std}; that of standardised clips is {DATA_STD}"
            )

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        last = float(axis.log_snr(torch.tensor(axis.last, dtype=torch.float64)))
        angle = ramp(num_intervals) * atan(exp(-last / 2) / self.std)
        return axis.at_log_snr(-2 * (self.std * angle.tan()).log())
