"""Quadratic: strides that shrink towards the data (Song et al. 2021, DDIM, "quadratic")."""

from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, noisiest, ramp


class QuadraticGrid(Grid):
    """t_i = (i / n)^2 of the way from data to the noisiest time."""

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        return noisiest(axis) * ramp(num_intervals).square()
