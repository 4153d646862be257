"""What a film is: pictures of an equation, as a GIF or, where there is one alone, as a PNG."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ddpm_lightning.data.gif import encode

DPI = 100
HOLD_MS = 2000  # of the last image
INK, BACK = "tab:blue", "tab:orange"  # the way to noise, and from it


class Picture(NamedTuple):
    """Images (N, H, W, 3) uint8, and how long each is shown; N = 1 is a still."""

    images: np.ndarray
    durations_ms: Sequence[int]

    def encode(self) -> bytes:
        """Return the bytes of a PNG for a still, else of a GIF."""
        if len(self.images) > 1:
            return encode(self.images, self.durations_ms)
        file = BytesIO()
        imsave(file, self.images[0], format="png")
        return file.getvalue()


class Film(ABC):
    """Draws itself; what it shows is computed by methods of its own, which tests check."""

    suffix = ".gif"

    @abstractmethod
    def draw(self) -> Picture:
        """Return the images."""


class Camera:
    """Takes images of a figure in which only the moving artists change: the rest is drawn once."""

    def __init__(self, figure: Figure, moving: Iterable[Artist]) -> None:
        self.moving = list(moving)
        for artist in self.moving:
            artist.set_animated(True)
        self.figure = figure
        self.canvas = cast(Any, FigureCanvasAgg(figure))  # matplotlib has no annotations here
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(figure.bbox)
        self.images: list[np.ndarray] = []

    def shoot(self) -> None:
        """Add an image of the figure as it is now."""
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        self.images.append(np.asarray(self.canvas.buffer_rgba())[..., :3].copy())

    def picture(self, image_ms: int) -> Picture:
        """Return the film of the images, of which the last one stays."""
        durations = [image_ms] * (len(self.images) - 1) + [HOLD_MS]
        return Picture(np.stack(self.images), durations)


def still(figure: Figure) -> Picture:
    """Return the figure as it is."""
    camera = Camera(figure, [])
    camera.shoot()
    return camera.picture(HOLD_MS)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of so many hundred pixels, which lays itself out."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def bare(axis: Axes) -> None:
    """Leave out the ticks of a plane or an image."""
    axis.set(xticks=[], yticks=[], aspect="equal")
