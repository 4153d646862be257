"""The variational bound, term by term, for data whose best denoiser is known.

    -log p(x_0) <= L_T + sum over t > 1 of L_{t-1} + L_0,   L_{t-1} = w_t E |noise - F|^2 per value,
    w_t = (c sigma_t / alpha_t)^2 / (2 v),   x_{t-1} | x_t, x_0 ~ N(.. + c x_0, v I)

The simple loss is the same sum with every w_t = 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from ddpm_lightning.films.base import Film, Picture, new_figure, still
from ddpm_lightning.films.ring import Ring
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.likelihood.variational import VariationalBound
from ddpm_lightning.processes.base import GaussianProcess

DATA = Level.of(*torch.tensor([1.0, 0.0], dtype=torch.float64))


class Terms(NamedTuple):
    """Nats per value: L_T, L_{t-1} (T - 1,) at times t, L_0, and -log p(x_0) itself."""

    t: Tensor
    last: float
    steps: Tensor
    first: float
    truth: float

    @property
    def bound(self) -> float:
        return self.last + float(self.steps.sum()) + self.first


class BoundFilm(Film):
    """The weights that the bound gives the error of the noise, and its terms.

    Args:
        chains: by name.
        num_points: of data, over which the terms are averaged.   seed: of data and noise.
    """

    suffix = ".png"

    def __init__(
        self, chains: Mapping[str, GaussianProcess], num_points: PositiveInt = 500, seed: int = 0
    ) -> None:
        self.rings = {name: Ring(chain) for name, chain in chains.items()}
        self.num_points, self.seed = num_points, seed

    def terms(self, ring: Ring) -> Terms:
        """Return the terms along all usable steps, with the exact denoiser."""
        generator = torch.Generator().manual_seed(self.seed)
        x_0 = ring.draw(self.num_points, generator)
        bound = VariationalBound(discrete=False)
        times = bound.times(ring.process, log_snr_floor(x_0.shape))[:-2]  # but for the step to 0
        terms = {
            name: value.mean() for name, value in bound.nats(ring, x_0, generator).terms.items()
        }
        last, first = float(terms.pop("prior")), float(terms.pop("decoder"))
        truth = -float(ring.log_density_at(x_0, DATA).mean()) / 2
        return Terms(times, last, torch.stack(list(terms.values())), first, truth)

    def draw(self) -> Picture:
        figure = new_figure(9.2, 4)
        weights, steps = figure.subplots(1, 2)
        lines = []
        for number, (name, ring) in enumerate(self.rings.items()):
            terms, style = self.terms(ring), {"color": f"C{number}", "linewidth": 1.2}
            x = terms.t / ring.process.num_steps
            weights.semilogy(x, noise_weight(ring.process, terms.t), label=name, **style)
            steps.semilogy(x, terms.steps, **style)
            lines.append(
                f"{name}: $L_T$ {terms.last:.3f} + $\\Sigma L_{{t-1}}$ {terms.steps.sum():.2f} "
                f"+ $L_0$ {terms.first:.2f} = {terms.bound:.2f}; true $-\\log p$ {terms.truth:.2f}"
            )
        weights.axhline(1, color="0.4", linestyle="--", linewidth=1, label="the simple loss")
        weights.set_title("weight of the noise's error in the bound", fontsize=11)
        steps.set_title("$L_{t-1}$, best denoiser, nats per value", fontsize=11)
        for axis in (weights, steps):
            axis.set(xlabel="t / T", xlim=(0, 1))
        weights.legend(fontsize=9)
        figure.supxlabel("\n".join(lines), fontsize=10)
        return still(figure)


def noise_weight(process: GaussianProcess, t: Tensor) -> Tensor:
    """Return w_t (K,), float64, for the steps down from usable times t (K,) above the first."""
    s = process.axis(log_snr_floor((1, 2))).before(t)
    alpha, sigma, _ = process.level(t)
    _, of_x_0, variance = process.conditional(s, t)
    return (of_x_0 * sigma / alpha).square() / (2 * variance)
