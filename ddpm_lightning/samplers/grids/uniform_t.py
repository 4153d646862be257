"""Uniform in t: even strides along the chain (Song et al. 2021, DDIM, "linear")."""

from torch import Tensor

from ddpm_lightning.processes.axis import TimeAxis
from ddpm_lightning.samplers.grids.base import Grid, ramp


class UniformTimeGrid(Grid):
    """t_i = i / n of the way from data to the noisiest time."""

    def wanted(self, axis: TimeAxis, num_intervals: int) -> Tensor:
        return axis.last * ramp(num_intervals)
