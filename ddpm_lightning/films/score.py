"""The score: at each level of noise, the direction in which points become more probable.

grad log p_t(x) = (alpha_t E[x_0 | x_t = x] - x) / sigma_t^2 = -E[noise | x_t = x] / sigma_t
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm_lightning.films.base import Film, Picture, bare, new_figure, still
from ddpm_lightning.films.ring import Ring, plane
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess

CELLS, ARROWS = 160, 15  # along a side
REACH = 1.2
LENGTH = 0.14  # of the longest arrows


class ScoreFilm(Film):
    """A panel for each level: the density, and arrows along the score.

    Args:
        chain: whose levels they are.
        log_snrs: of the levels; the chain's times that come closest are shown.
    """

    suffix = ".png"

    def __init__(
        self,
        chain: GaussianProcess,
        log_snrs: Annotated[Sequence[float], Field(min_length=1)] = (6.0, 4.0, 2.5, -1.0),
    ) -> None:
        self.ring = Ring(chain)
        self.axis = chain.axis(log_snr_floor((1, 2)))
        self.times = self.axis.at_log_snr(torch.tensor(log_snrs, dtype=torch.float64))

    def field(self, t: Tensor, x: Tensor) -> Tensor:
        """Return sigma_t times the score (N, 2) at points x (N, 2): minus the expected noise."""
        level = self.ring.process.level(t)
        return level.sigma * self.ring.score_at(x, level)

    def draw(self) -> Picture:
        figure = new_figure(9.2, 9.2 / max(3, len(self.times)) + 0.8)
        figure.suptitle(
            "Shade: density of $x_t$.  Arrows: $\\sigma_t \\nabla\\log p_t(x)$, minus the noise "
            "expected in $x$; long ones are cut",
            fontsize=11,
        )
        panels = figure.subplots(1, len(self.times), squeeze=False)[0]
        for axis, t in zip(panels, self.times, strict=True):
            level = self.ring.process.level(t)
            self.ring.shade(axis, level, REACH, CELLS, cmap="Blues", peak=1.6)
            x = plane(REACH * (1 - 1 / ARROWS), ARROWS)
            field = self.field(t, x)
            arrow = LENGTH * field / (1 + field.square().sum(1, keepdim=True)).sqrt()
            axis.quiver(*x.T, *arrow.T, angles="xy", scale_units="xy", scale=1, width=0.007)
            bare(axis)
            axis.set_title(f"log-SNR {float(level.log_snr):.1f}, t = {float(t):g}", fontsize=10)
            axis.set_xlabel(f"$\\alpha$ = {level.alpha:.2f}, $\\sigma$ = {level.sigma:.2f}")
        return still(figure)
