"""Clips of three frames and two pixels with a Gaussian law: denoiser, conditionals and walks are
known exactly, with a level for every frame.
"""

from itertools import count

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.walk import Point
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.tensors import expand

SHAPE = (1, 3, 1, 2)  # C, F, H, W
SIZE = 6


class GaussianClips:
    """Data N(mean, covariance), Markov along frames, with neighbours alike; an exact Estimator.

    Args:
        mean: of the first and the last value; it is linear between.
    """

    def __init__(self, process: GaussianProcess, mean: tuple[float, float] = (-0.3, 0.4)) -> None:
        self.process, self.statistics = process, Statistics()
        frame, pixel = torch.arange(SIZE) // 2, torch.arange(SIZE) % 2
        distance = (frame[:, None] - frame).abs() + 0.4 * (pixel[:, None] - pixel).abs()
        self.mean = torch.linspace(mean[0], mean[1], SIZE).double()
        self.covariance = 0.25 * 0.7 ** distance.double()

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        """Return E[x_0 | x] for x (B, *SHAPE), float64."""
        ones = torch.ones_like(x[:1])
        alpha, sigma = (expand(part, x).to(ones) * ones for part in level[:2])
        alpha, sigma = (part.flatten(1).expand(len(x), -1) for part in (alpha, sigma))
        covariance = alpha[:, :, None] * self.covariance * alpha[:, None]
        covariance = covariance + torch.diag_embed(sigma.square())
        rest = torch.linalg.solve(covariance, (x.flatten(1) - alpha * self.mean)[..., None])
        x_0 = self.mean + (self.covariance @ (alpha[..., None] * rest))[..., 0]
        return Estimate(x_0.reshape(x.shape), None)

    def conditional(self, mask: Tensor, values: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of what the mask (SIZE,) leaves out.

        Args:
            values: (n,) of what it marks, with noise of the standard deviation ratio.
        """
        of_known = self.covariance[mask][:, mask] + ratio**2 * torch.eye(int(mask.sum()))
        cross = self.covariance[~mask][:, mask]
        gain = torch.linalg.solve(of_known, cross.T).T
        mean = self.mean[~mask] + gain @ (values - self.mean[mask])
        return mean, self.covariance[~mask][:, ~mask] - gain @ cross.T


def exact_moments(sampler: Sampler, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """Return mean (SIZE,) and covariance of the ends of walks, without sampling error.

    Every step is affine in the noise. Walk k of a batch has a 1 at one value of one draw, the last
    one has no noise at all.
    """
    process = estimator.process
    times = sampler.times(process, log_snr_floor((1, *SHAPE)))
    size = SIZE * 2 * (len(times) + 1) + 1  # two draws a step at most
    number = count()

    def draw() -> Tensor:
        noise = torch.zeros(size, SIZE, dtype=torch.float64)
        first = SIZE * next(number)
        noise[first : first + SIZE] = torch.eye(SIZE)
        return noise.reshape(size, *SHAPE)

    start = sampler.start(Point.at(process, times[0]), process, draw)
    with torch.no_grad():
        ends = sampler.walk(estimator, start, times, draw)
    ends = ends.reshape(size, SIZE)
    effects = ends[:-1] - ends[-1]
    return ends[-1], effects.T @ effects
