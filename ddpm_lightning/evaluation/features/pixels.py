"""Pixels: the means of the cells of a coarse grid over each frame; no weights, no network."""

from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from ddpm_lightning.evaluation.features.base import FeatureSeries


class Pixels(FeatureSeries):
    """f_t = mean value of each of grid x grid cells, in each colour: grid^2 C features.

    It cannot see what a cell averages away (noise, blur), nor the direction of time.
    """

    name = "pixels"

    def __init__(self, grid: PositiveInt = 8) -> None:
        self.grid = self.min_size = grid

    def series(self, frames: Tensor) -> Tensor:
        cells: Tensor = F.adaptive_avg_pool2d(
            frames.flatten(1, 2), self.grid
        )  # (N, C*F, grid, grid)
        cells = cells.unflatten(1, frames.shape[1:3]).movedim(2, -1)  # (N, C, grid, grid, F)
        return cells.flatten(1, 3)[..., None]
