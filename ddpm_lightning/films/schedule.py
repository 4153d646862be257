"""Every noise schedule on every chain: what one makes of the other.

    betas -> log-SNR(t) = 2 log(alpha_t / sigma_t) -> density of log-SNR where t is uniform

The density is all that training sees of a chain and a schedule.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ddpm_lightning.films.base import Film, Picture, new_figure, still
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.base import GaussianProcess

LOWEST, HIGHEST = -16.0, 12.0  # log-SNR that is shown
EDGES = torch.arange(LOWEST, HIGHEST + 0.5, 0.5, dtype=torch.float64)
COLUMNS = 4
NUM_TIMES = 20_000  # that the density is counted at
NUM_VALUES = 8 * 16 * 16  # of a clip, which decide where log-SNR's floor is
LINES = ("-", "--", ":")


class ScheduleFilm(Film):
    """log-SNR and its density, a column for each chain; the betas, which all chains share.

    Args:
        chains: by name, each constructed from a schedule.   schedules: by name.
    """

    suffix = ".png"

    def __init__(
        self,
        chains: Mapping[str, Callable[[NoiseSchedule], GaussianProcess]],
        schedules: Mapping[str, NoiseSchedule],
    ) -> None:
        self.schedules = schedules
        self.processes = {
            chain: {name: build(schedule) for name, schedule in schedules.items()}
            for chain, build in chains.items()
        }

    def draw(self) -> Picture:
        num_columns = min(COLUMNS, len(self.processes) + 1)
        num_bands = -(-(len(self.processes) + 1) // num_columns)
        figure = new_figure(2.6 * num_columns, 5 * num_bands)
        axes = figure.subplots(2 * num_bands, num_columns, squeeze=False)
        # Pairs of panels, one above the other, in bands from left to right.
        pairs = axes.reshape(num_bands, 2, num_columns).transpose(0, 2, 1).reshape(-1, 2)
        for (above, below), (chain, processes) in zip(pairs, self.processes.items(), strict=False):
            for number, process in enumerate(processes.values()):
                self._draw_log_snr(above, process, _style(number))
                below.stairs(density(process, EDGES), EDGES, **_style(number))
            above.set_title(f"{chain}: log-SNR over t / T", fontsize=10)
            below.set_title("density of log-SNR, t uniform", fontsize=10)
            below.set(xlim=(LOWEST, HIGHEST), xlabel="log-SNR")
        above, below = pairs[len(self.processes)]
        self._draw_betas(above)
        handles = above.get_legend_handles_labels()
        below.legend(*handles, fontsize=10, loc="center", title="noise=")
        for axis in (below, *pairs[len(self.processes) + 1 :].flat):
            axis.set_axis_off()
        return still(figure)

    def _draw_log_snr(self, axis: Axes, process: GaussianProcess, style: Mapping[str, Any]) -> None:
        t = torch.arange(1, process.num_steps + 1)
        axis.plot(t / process.num_steps, process.log_snr(t), linewidth=1, **style)
        axis.set(ylim=(LOWEST, HIGHEST), xlim=(0, 1))

    def _draw_betas(self, axis: Axes) -> None:
        for number, (name, schedule) in enumerate(self.schedules.items()):
            betas = schedule.betas()
            x = torch.arange(1, len(betas) + 1) / len(betas)
            noisy = betas > 0  # all steps, but for every second one of hybrid
            axis.semilogy(x[noisy], betas[noisy], linewidth=1, label=name, **_style(number))
        axis.set(ylim=(1e-5, 1), xlim=(0, 1))
        axis.set_title("betas over t / T, where not 0", fontsize=10)


def density(process: GaussianProcess, edges: Tensor) -> Tensor:
    """Return the density of log-SNR between edges, for t uniform over the usable times."""
    fraction = (torch.arange(NUM_TIMES, dtype=torch.float64) + 0.5) / NUM_TIMES
    floor = log_snr_floor((1, NUM_VALUES))
    levels = process.log_snr(process.informative_time(fraction, floor))
    counts = torch.histogram(levels, edges).hist
    return counts / NUM_TIMES / edges.diff()


def _style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "linestyle": LINES[number % len(LINES)]}
