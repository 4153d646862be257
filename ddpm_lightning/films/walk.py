"""Several samplers on their way from the same noise to data whose best denoiser is known.

    x_T ~ N(0, sigma_T^2 I) -> x_0, with D = E[x_0 | x_t] exact for the ring of six Gaussians

What goes wrong here is the sampler's alone: too few steps, or none of the noise that undoes errors.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from pydantic import Field, PositiveInt
from torch import Tensor

from ddpm_lightning.evaluation.distances import sliced_wasserstein
from ddpm_lightning.films.base import INK, Camera, Film, Picture, bare, new_figure
from ddpm_lightning.films.ring import Ring
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import State

IMAGES = 4  # from one step to the next
IMAGE_MS = 80
REACH = 2.1
CELLS = 240
DOTS = 600  # points that are drawn
# Of the shaded density: smeared, so that a cell is no wider than what it shows.
AT_DATA = Level.of(*torch.tensor([1.0, 0.02], dtype=torch.float64))


class Walked(NamedTuple):
    """The places of all points after each step (K, N, 2), and the last ones' distance to data."""

    x: Tensor
    distance: float


class WalkFilm(Film):
    """A panel for each sampler: the paths of some points, and where all the others are.

    Args:
        chain: that is walked.
        samplers: by name, each constructed from its number of evaluations.
        evaluations: of each sampler.   num_paths: points whose paths are drawn.
        num_points: in all.   seed: of the noise, the same for each sampler.
    """

    def __init__(
        self,
        chain: GaussianProcess,
        samplers: Annotated[Mapping[str, Callable[[int], Sampler]], Field(min_length=1)],
        evaluations: int = 10,
        num_paths: PositiveInt = 8,
        num_points: PositiveInt = 4000,
        seed: int = 0,
    ) -> None:
        self.ring = Ring(chain)
        self.samplers = {name: build(evaluations) for name, build in samplers.items()}
        self.num_paths, self.num_points, self.seed = num_paths, num_points, seed

    def walks(self) -> dict[str, Walked]:
        """Return where each sampler's points have been."""
        return {name: self._walked(sampler) for name, sampler in self.samplers.items()}

    def _walked(self, sampler: Sampler) -> Walked:
        states: list[State] = []
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_points, 2)
        x_0 = sampler.sample(self.ring, shape, generator=generator, callback=states.append)
        x = torch.stack([state.x / self._scale(state.t) for state in states])
        return Walked(x, self.distance(x_0, self.seed))

    def _scale(self, t: float) -> float:
        """Return what x_t is divided by, to stay in the picture where variance explodes."""
        alpha, sigma, _ = self.ring.process.level(t)
        return max(1.0, float((alpha.square() + sigma.square()).sqrt()))

    def distance(self, x_0: Tensor, seed: int) -> float:
        """Return the sliced Wasserstein-1 distance of points (N, 2) to as many of the data."""
        data = self.ring.draw(len(x_0), torch.Generator().manual_seed(seed + 1))
        return sliced_wasserstein(x_0.double(), data)

    def draw(self) -> Picture:
        walks = self.walks()
        columns = len(walks) if len(walks) <= 4 else 3
        rows = -(-len(walks) // columns)
        figure = new_figure(9.2, 9.2 / columns * rows + 1.1)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        generator = torch.Generator().manual_seed(self.seed)
        exact = self.distance(self.ring.draw(self.num_points, generator), self.seed)
        figure.suptitle(
            f"From the same noise to the data (grey ring), {self.num_paths} paths in colour; "
            f"distance to the data of exact draws: {exact:.3f}",
            fontsize=11,
        )
        panels = [
            _Panel(axis, name, self.samplers[name], walked, self.num_paths)
            for axis, (name, walked) in zip(axes, walks.items(), strict=False)
        ]
        for axis in axes[len(walks) :]:
            axis.set_axis_off()
        for panel in panels:
            self.ring.shade(panel.axis, AT_DATA, REACH, CELLS, cmap="Greys", peak=1.5)
        camera = Camera(figure, [artist for panel in panels for artist in panel.moving])
        steps = IMAGES * (max(len(walked.x) for walked in walks.values()) - 1)
        for k in range(steps + 1):
            for panel in panels:
                panel.show(k / steps)
            camera.shoot()
        return camera.picture(IMAGE_MS)


class _Panel:
    """One sampler's points."""

    def __init__(
        self, axis: Axes, name: str, sampler: Sampler, walked: Walked, num_paths: int
    ) -> None:
        self.axis, self.x, self.num_paths = axis, walked.x, num_paths
        noise = "fresh noise" if sampler.stochastic else "no fresh noise"
        axis.set_title(f"{name}\norder {sampler.order}, {noise}", fontsize=10)
        steps = len(walked.x) - 1
        axis.set_xlabel(
            f"{sampler.num_calls} calls, {steps} steps\ndistance {walked.distance:.3f}", fontsize=10
        )
        bare(axis)
        axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
        colours = [f"C{i % 10}" for i in range(num_paths)]
        (self.dots,) = axis.plot([], [], ".", color=INK, markersize=2)
        self.paths = LineCollection([], colors=colours, linewidths=1)
        axis.add_collection(self.paths)
        self.ends = axis.scatter([0.0] * num_paths, [0.0] * num_paths, s=12, c=colours, zorder=3)
        self.moving = [self.dots, self.paths, self.ends]

    def show(self, fraction: float) -> None:
        """Move to a fraction of the walk, straight from each step to the next."""
        place = fraction * (len(self.x) - 1)
        i = min(int(place), len(self.x) - 2)
        x = torch.lerp(self.x[i], self.x[i + 1], place - i)
        self.dots.set_data(*x[self.num_paths : DOTS].T)
        paths = torch.cat([self.x[: i + 1], x[None]])[:, : self.num_paths]
        self.paths.set_segments(list(paths.transpose(0, 1).numpy()))
        self.ends.set_offsets(x[: self.num_paths])
