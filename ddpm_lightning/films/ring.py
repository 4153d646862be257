"""Six Gaussians on a ring in the plane: data whose density, denoiser and score are known.

    x_0 ~ mean over k of N(mu_k, S_k),   x = alpha x_0 + sigma noise ~ N(alpha mu_k, V_k),
    V_k = alpha^2 S_k + sigma^2 I,   shares r_k(x) ~ N(x; alpha mu_k, V_k)
    E[x_0 | x] = sum_k r_k (mu_k + alpha S_k V_k^-1 (x - alpha mu_k))

Each is 0.02 wide, across the ring, and 0.15 long, along it.
"""

from math import log, pi

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ddpm_lightning.denoiser import Estimate
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.tensors import combine

NUM_GAUSSIANS = 6
RADIUS, WIDTH, LENGTH = 0.6, 0.02, 0.15
VARIANCE = (RADIUS**2 + WIDTH**2 + LENGTH**2) / 2  # of each of the two coordinates; the mean is 0


class Ring:
    """An exact Estimator for points (N, 2), float32 or float64."""

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process
        self.statistics = Statistics()  # leaves points as they are
        angle = torch.arange(NUM_GAUSSIANS).double() * 2 * pi / NUM_GAUSSIANS
        across = torch.stack([angle.cos(), angle.sin()], 1)
        self.means = RADIUS * across
        self.axes = torch.stack([across, across[:, [1, 0]] * torch.tensor([-1.0, 1.0])], 1)
        self.variances = torch.tensor([WIDTH, LENGTH]).double().square()

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        alpha, sigma, _ = level
        along = self.along_axes(x, alpha)
        variance = alpha.square() * self.variances + sigma.square()
        shares = (-along.square() / variance / 2).sum(-1).softmax(-1)  # (N, 6)
        within = torch.einsum("nka,kad->nkd", alpha * self.variances / variance * along, self.axes)
        x_0 = (shares[..., None] * (self.means + within)).sum(1)
        return Estimate(x_0.to(x.dtype), None)

    def log_density_at(self, x: Tensor, level: Level) -> Tensor:
        """Return log p (N,) of points x (N, 2) at a level, float64."""
        alpha, sigma, _ = level
        variance = alpha.square() * self.variances + sigma.square()
        exponents = -(self.along_axes(x, alpha).square() / variance).sum(-1) / 2
        constant = log(2 * pi * NUM_GAUSSIANS) + variance.log().sum() / 2
        return exponents.logsumexp(-1) - constant

    def score_at(self, x: Tensor, level: Level) -> Tensor:
        """Return grad log p (N, 2), by Tweedie's formula: (alpha E[x_0 | x] - x) / sigma^2."""
        variance = level.sigma.square()
        return combine(level.alpha / variance, self.estimate_at(x, level).x_0, -1 / variance, x)

    def shade(
        self, axis: Axes, level: Level, reach: float, num_cells: int, cmap: str, peak: float
    ) -> None:
        """Draw the density at a level; the darkest colour is that of peak times its maximum."""
        density = self.log_density_at(plane(reach, num_cells), level).exp()
        image = density.view(num_cells, num_cells)
        extent, darkest = (-reach, reach, -reach, reach), peak * float(image.max())
        axis.imshow(image, cmap=cmap, vmax=darkest, origin="lower", extent=extent)

    def coordinate_density_at(self, x: Tensor, level: Level) -> Tensor:
        """Return the density (N,) of the first coordinate at x (N,), float64."""
        alpha, sigma, _ = level
        variance = alpha.square() * (self.axes[..., 0].square() @ self.variances) + sigma.square()
        offsets = x[:, None] - alpha * self.means[:, 0]
        heights = torch.exp(-offsets.square() / variance / 2) / (2 * pi * variance).sqrt()
        return heights.mean(1)

    def draw(self, num_points: int, generator: torch.Generator) -> Tensor:
        """Return points (N, 2) of the data, float64."""
        k = torch.randint(NUM_GAUSSIANS, (num_points,), generator=generator)
        z = torch.randn(num_points, 2, generator=generator).double() * self.variances.sqrt()
        return self.means[k] + torch.einsum("na,nad->nd", z, self.axes[k])

    def along_axes(self, x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
        """Return the offsets (N, 6, 2) of points from each mean, across the ring and along it."""
        return torch.einsum("nkd,kad->nka", x.double()[:, None] - alpha * self.means, self.axes)


def plane(reach: float, num: int) -> Tensor:
    """Return a square grid of points (num * num, 2) within +-reach, row by row from below."""
    side = torch.linspace(-reach, reach, num, dtype=torch.float64)
    return torch.cartesian_prod(side, side).flip(1)
