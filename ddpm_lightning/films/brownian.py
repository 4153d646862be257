"""Ink in water: Brownian motion, and the way back.

    there   dx = sqrt(2 D) dw,   x_t ~ N(x_0, 2 D t I), whose spread is sqrt(s_0^2 + 2 D t)
    back    dx = -2 D grad log p_t dt + sqrt(2 D) dw, with t falling (Anderson 1982)

The ink starts as a ring of six drops, whose score is known exactly at every time. The way back is
`SDESampler`, the one that samples clips.
"""

from math import pi
from typing import Annotated, NamedTuple

import torch
from matplotlib.collections import LineCollection
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from ddpm_lightning.films.base import BACK, INK, Camera, Film, Picture, bare, new_figure
from ddpm_lightning.films.ring import VARIANCE, Ring
from ddpm_lightning.level import Level
from ddpm_lightning.processes.axis import ContinuousAxis, TimeAxis
from ddpm_lightning.processes.base import Combination, GaussianProcess, Time
from ddpm_lightning.samplers.sde import SDESampler
from ddpm_lightning.samplers.walk import State

STEPS = 5  # from one image to the next
TRAILS, TRAIL = 6, 30  # particles that leave one, and its steps
REACH = 2.6  # of the picture, in standard deviations at the end
BINS = 40
PEAK = 1.7  # of the density that is shown
IMAGE_MS = 80
LAW = "$\\sqrt{s_0^2 + 2Dt}$"


class BrownianMotion(GaussianProcess):
    """alpha = 1, C[s, t] = 2 D min(s, t); t in seconds."""

    def __init__(self, diffusivity: float = 0.03, seconds: int = 10) -> None:
        super().__init__(seconds)
        self.diffusivity = diffusivity

    def level(self, t: Time) -> Level:
        t = torch.as_tensor(t, dtype=torch.float64)
        return Level.of(torch.ones_like(t), (2 * self.diffusivity * t).sqrt())

    def covariance(self, s: Time, t: Time) -> Tensor:
        s, t = (torch.as_tensor(u, dtype=torch.float64) for u in (s, t))
        return 2 * self.diffusivity * s.minimum(t)

    def origin(self, t: Time) -> Combination:
        return Combination(((torch.as_tensor(t).double() - 1).clamp(min=0),), (1.0,))

    def build_axis(self, floor: float) -> TimeAxis:
        return ContinuousAxis(self.log_snr, self.num_steps / 1000, float(self.num_steps), floor)


class Motion(NamedTuple):
    """Times (K,) and the particles' places at them (K, N, 2), there and back again."""

    t: Tensor
    x: Tensor


class BrownianFilm(Film):
    """Particles, the density of one coordinate, and the spread over time.

    Args:
        num_particles: of ink.   diffusivity: D, in squared units of length a second.
        seconds: that the ink spreads for.   num_images: there, and as many back.
        seed: of all that is random.
    """

    def __init__(
        self,
        num_particles: Annotated[int, Field(ge=2)] = 1000,
        diffusivity: PositiveFloat = 0.03,
        seconds: PositiveInt = 10,
        num_images: PositiveInt = 30,
        seed: int = 0,
    ) -> None:
        self.motion = BrownianMotion(diffusivity, seconds)
        self.ring = Ring(self.motion)
        self.num_particles, self.num_images = num_particles, num_images
        # Closer to each other where the ink is small: sqrt(t) grows evenly.
        fraction = torch.linspace(0, 1, STEPS * num_images + 1, dtype=torch.float64)
        self.times = seconds * fraction.square()
        self.seed = seed

    def there(self) -> Motion:
        """Return the particles from t = 0 on, moved by independent increments."""
        generator = torch.Generator().manual_seed(self.seed)
        start = self.ring.draw(self.num_particles, generator)
        spread = (2 * self.motion.diffusivity * self.times.diff()).sqrt()
        noise = torch.randn(len(spread), *start.shape, generator=generator, dtype=torch.float64)
        moves = spread[:, None, None] * noise
        return Motion(self.times, torch.cat([start[None], start + moves.cumsum(0)]))

    def back(self, x: Tensor) -> Motion:
        """Return the particles on their way from places x (N, 2) at the end to t = 0."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        states: list[State] = []

        def draw() -> Tensor:
            return torch.randn(x.shape, generator=generator, dtype=x.dtype)

        SDESampler().walk(self.ring, x, self.times.flip(0), draw, states.append)
        return Motion(self.times.flip(0), torch.stack([state.x for state in states]))

    def law_of_spread(self, t: Tensor) -> Tensor:
        """Return sqrt(s_0^2 + 2 D t)."""
        return (VARIANCE + self.motion.level(t).sigma.square()).sqrt()

    def draw(self) -> Picture:
        there = self.there()
        back = self.back(there.x[-1])
        scene = _Scene(self)
        scene.play(
            there, INK, "THERE: every particle moves by chance alone,\n$dx = \\sqrt{2D}\\,dw$"
        )
        scene.play(
            back, BACK, "BACK: by chance and along the score,\n"
            "$dx = -2D\\,\\nabla\\log p_t\\,dt + \\sqrt{2D}\\,dw$",
        )  # fmt: skip
        return scene.camera.picture(IMAGE_MS)


class _Scene:
    """The water at the left; at the right one coordinate's density, and the spread over time."""

    def __init__(self, film: BrownianFilm) -> None:
        self.film = film
        reach = REACH * float(film.law_of_spread(film.times[-1]))
        figure = new_figure(9, 4.4)
        axes = figure.subplot_mosaic(
            [["water", "density"], ["water", "spread"]], width_ratios=[1, 1.1]
        )
        water, density, spread = axes["water"], axes["density"], axes["spread"]
        bare(water)
        water.set(xlim=(-reach, reach), ylim=(-reach, reach))
        self.title = water.set_title("BACK\n$\\sqrt{2D}$", fontsize=11)
        (self.dots,) = water.plot([], [], ".", markersize=2.5)
        self.trails = LineCollection([], linewidths=1, colors="black")
        water.add_collection(self.trails)
        self.clock = water.text(0.03, 0.03, "", transform=water.transAxes, fontsize=11)

        self.edges = torch.linspace(-reach, reach, BINS + 1, dtype=torch.float64)
        self.line = torch.linspace(-reach, reach, 8 * BINS + 1, dtype=torch.float64)
        self.bars = density.stairs(torch.zeros(BINS), self.edges, fill=True, alpha=0.4)
        (self.exact,) = density.plot([], [], color="black", linewidth=1.2)
        (self.limit,) = density.plot([], [], "--", color="tab:red", linewidth=1.2)
        density.set(xlim=(-reach, reach), ylim=(0, PEAK), yticks=[])
        density.set_title(
            "ink from left to right: bars; its law: line;\na Gaussian as wide: dashed", fontsize=11
        )

        t = film.times
        spread.plot(t, film.law_of_spread(t), color="0.75", linewidth=5, label=LAW)
        self.traces = {
            INK: spread.plot([], [], color=INK, label="particles, there")[0],
            BACK: spread.plot([], [], color=BACK, label="and back")[0],
        }
        spread.set(xlabel="t in seconds", ylim=(0, None))
        spread.set_title("spread (standard deviation)", fontsize=11)
        spread.legend(fontsize=9, loc="lower right")
        moving = [self.title, self.dots, self.trails, self.clock, self.bars, self.exact, self.limit]
        self.camera = Camera(figure, [*moving, *self.traces.values()])

    def play(self, motion: Motion, colour: str, title: str) -> None:
        """Take an image of every STEPS-th time of a motion."""
        self.title.set_text(title)
        self.dots.set_color(colour)
        self.bars.set_color(colour)
        spreads = motion.x.var(1).mean(-1).sqrt()
        for k in range(0, len(motion.t), STEPS):
            t, x = motion.t[k], motion.x[k]
            self.clock.set_text(f"t = {float(t):.1f} s")
            self.dots.set_data(x[:, 0], x[:, 1])
            trail = motion.x[max(0, k - TRAIL) : k + 1, :TRAILS]
            self.trails.set_segments(list(trail.transpose(0, 1).numpy()))
            self.bars.set_data(torch.histogram(x[:, 0], self.edges, density=True).hist)
            level = self.film.motion.level(t)
            self.exact.set_data(self.line, self.film.ring.coordinate_density_at(self.line, level))
            self.limit.set_data(self.line, gaussian(self.line, self.film.law_of_spread(t)))
            self.traces[colour].set_data(motion.t[: k + 1], spreads[: k + 1])
            self.camera.shoot()


def gaussian(x: Tensor, std: Tensor) -> Tensor:
    """Return the density of N(0, std^2) at x."""
    height: Tensor = torch.exp(-(x / std).square() / 2) / (std * (2 * pi) ** 0.5)
    return height
