"""The forward process of a real GIF, on several chains side by side.

x_t = alpha_t x_0 + noise_t,   Cov(noise_s, noise_t) = C[s, t]:  one path of each chain
log-SNR = 2 log(alpha_t / sigma_t)
signal's share of the variance = alpha_t^2 s_d^2 / (alpha_t^2 s_d^2 + sigma_t^2),   s_d = 1/2
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.typing import HashableList
from pydantic import PositiveInt
from torch import Tensor

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.films.base import Camera, Film, Picture, bare, new_figure
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import DATA_STD, Statistics

NUM_MEASURED = 32  # GIFs whose mean and deviation standardise the one that is shown
LOWEST, HIGHEST = -16.0, 12.0  # log-SNR that is shown
IMAGE_MS = 120


class ForwardFilm(Film):
    """The clip plays while noise takes it over; beside it log-SNR, and the share that is signal.

    Args:
        data: whose first clip is shown.
        chains: by name.
        num_images: from t = 0 to T.   seed: of the noise.
    """

    def __init__(
        self,
        data: ClipData,
        chains: Mapping[str, GaussianProcess],
        num_images: PositiveInt = 32,
        seed: int = 0,
    ) -> None:
        self.data, self.chains, self.num_images, self.seed = data, chains, num_images, seed

    def times(self, chain: GaussianProcess) -> Tensor:
        """Return the whole times (K,) of the images: the clip plays once before t leaves 0."""
        on_the_way = torch.linspace(0, chain.num_steps, self.num_images).round()
        return torch.cat([torch.zeros(self.data.format.num_frames), on_the_way])

    def path(self, chain: GaussianProcess, x_0: Tensor) -> Tensor:
        """Return x_t (K, C, H, W) at the times of the images; the clip x_0 (C, F, H, W) plays on.

        The noise of one frame at several times has the covariances of the chain: it is one path.
        """
        t = self.times(chain)
        alpha = chain.level(t).alpha.float()
        values, vectors = torch.linalg.eigh(chain.covariance(t[:, None], t))
        root = (vectors * values.clamp(min=0).sqrt()).float()  # C = root root'
        generator = torch.Generator().manual_seed(self.seed)
        x_t = torch.empty(len(t), x_0.shape[0], *x_0.shape[2:])
        for number, frame in enumerate(x_0.unbind(1)):
            shown = torch.arange(len(t)) % x_0.shape[1] == number
            noise = torch.randn(x_t.shape, generator=generator)
            signal = torch.einsum("k,chw->kchw", alpha[shown], frame)
            x_t[shown] = signal + torch.einsum("kj,jchw->kchw", root[shown], noise)
        return x_t

    def draw(self) -> Picture:
        statistics = Statistics()
        clips = self.data.first_clips(NUM_MEASURED)
        statistics.measure(clips)
        x_0 = statistics.standardise(clips[0][None])[0]
        figure = new_figure(2.7 * len(self.chains) + 3.6, 3.5)
        layout: list[HashableList[str]] = [[*self.chains, "log-SNR"], [*self.chains, "share"]]
        axes = figure.subplot_mosaic(layout, width_ratios=[1] * len(self.chains) + [1.2])
        tracks = []
        for number, (name, chain) in enumerate(self.chains.items()):
            images = statistics.restore(self.path(chain, x_0)[:, :, None])[:, 0]
            curves = axes["log-SNR"], axes["share"]
            tracks.append(_Track(axes[name], curves, chain, name, f"C{number}"))
            tracks[-1].load(self.times(chain), images)
        axes["log-SNR"].set(ylim=(LOWEST, HIGHEST), xlim=(0, 1), xticklabels=[])
        axes["log-SNR"].set_title("log-SNR", fontsize=11)
        axes["log-SNR"].axhline(0, color="0.8", linewidth=0.8)
        axes["log-SNR"].legend(fontsize=8, loc="lower left")
        axes["share"].set(ylim=(0, 1), xlim=(0, 1), xlabel="t / T")
        axes["share"].set_title("signal's share of the variance", fontsize=11)
        camera = Camera(figure, [artist for track in tracks for artist in track.moving])
        for k in range(len(tracks[0].t)):
            for track in tracks:
                track.show(k)
            camera.shoot()
        return camera.picture(IMAGE_MS)


class _Track:
    """What is seen of one chain: its images, and a point on each of its curves."""

    def __init__(
        self, axis: Axes, curves: Sequence[Axes], chain: GaussianProcess, name: str, colour: str
    ) -> None:
        self.chain = chain
        t = torch.arange(1, chain.num_steps + 1)
        level = chain.level(t)
        self.points = []
        for curve, y in zip(curves, (level.log_snr, signal_share(level)), strict=True):
            curve.plot(t / chain.num_steps, y, color=colour, linewidth=1.2, label=name)
            self.points.append(curve.plot([], [], "o", color=colour)[0])
        bare(axis)
        axis.set_title(f"$x_t$, {name}", fontsize=11, color=colour)
        self.caption = axis.text(
            0.5, -0.03, "\n", transform=axis.transAxes, ha="center", va="top", fontsize=10
        )
        self.screen = axis.imshow(np.zeros((1, 1)), cmap="gray", vmin=0, vmax=255)
        self.moving = [self.screen, self.caption, *self.points]

    def load(self, t: Tensor, images: Tensor) -> None:
        """Take images uint8 (K, H, W, C) at times t (K,)."""
        self.t, self.images = t, images.squeeze(-1).numpy()
        height, width = self.images.shape[1:3]
        self.screen.set_extent((0, width, height, 0))

    def show(self, k: int) -> None:
        """Move to the k-th time."""
        level, place = self.chain.level(self.t[k]), float(self.t[k]) / self.chain.num_steps
        share = float(signal_share(level))
        self.screen.set_data(self.images[k])
        self.points[0].set_data([place], [level.log_snr.clamp(LOWEST, HIGHEST)])
        self.points[1].set_data([place], [share])
        of_noise = f"log-SNR {float(level.log_snr):.1f}" if level.sigma else "no noise yet"
        self.caption.set_text(
            f"t = {self.t[k]:g}: {of_noise}\n{100 * share:.0f} % of the variance is signal"
        )


def signal_share(level: Level) -> Tensor:
    """Return the share of x_t's variance that is signal, for clips of deviation s_d."""
    signal = level.alpha.square() * DATA_STD**2
    return signal / (signal + level.sigma.square())
