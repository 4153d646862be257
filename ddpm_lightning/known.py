"""Known: an estimator for clips of which some frames or pixels are given.

The estimate of what is given is the clip itself, so that under any sampler it comes out as it went
in. Of all the rest the estimate is conditioned on it:

    KnownFrames   given frames enter the network at a level of their own, the others at the walk's:
                  E[x_0 | x, y],  y = alpha_k clip + sigma_k noise.  Needs a network that is trained
                  with times=frames, and then costs nothing.
    KnownPixels   any values, any network: from E[x_0 | x] and its derivative, below.

Cov(x_0 | x) = V = sigma^2 / alpha dE[x_0 | x] / dx by Tweedie's formula, so that for Gaussian data

    E[x_0 | x, y] = D + V M (r^2 + M V M)^-1 M (clip - D),   M the mask, r = sigma_k / alpha_k,

exactly (moment matching: Rozet et al. 2024), at a derivative of the network for each iteration of
a solver. To show given values to the network at the level of the walk and no
more (replacement, Song et al. 2021; no iterations here) conditions the rest on too little.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.tensors import expand

TINY = 1e-12  # of a norm


class Known(ABC):
    """Completes clips of which something is given.

    Args:
        clip: (B, C, F, H, W), standardised; what it holds outside of the mask is not used.
        mask: Bool, broadcast against the clip: what of it is given.
        level: () at which it enters; a log-SNR of about 6 forgives errors that no eye sees.
    """

    def __init__(self, estimator: Estimator, clip: Tensor, mask: Tensor, level: Level) -> None:
        self.estimator = estimator
        self.clip, self.mask, self.level = clip, mask.to(clip.device), level

    @property
    def process(self) -> GaussianProcess:
        return self.estimator.process

    @property
    def statistics(self) -> Statistics:
        return self.estimator.statistics

    def complete(self, x: Tensor) -> Tensor:
        """Return x with the clip where it is given."""
        return torch.where(self.mask, self.clip, x)

    @abstractmethod
    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        """Return the estimate, with the clip where it is given."""


class KnownFrames(Known):
    """Given frames at a level of their own.

    Args:
        mask: (B or 1, 1, F, 1, 1).
        noise: like the clip, drawn once a walk: a solver then follows one flow, at its own order.
    """

    def __init__(
        self, estimator: Estimator, clip: Tensor, mask: Tensor, level: Level, noise: Tensor
    ) -> None:
        super().__init__(estimator, clip, mask, level)
        self.noisy = level.diffuse(clip, noise)
        self.is_known = mask[:, 0, :, 0, 0].cpu()  # (B or 1, F)

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        of_frames = Level(
            *(
                torch.where(self.is_known, known, each.reshape(-1, 1)).expand(len(x), -1)
                for known, each in zip(self.level, level, strict=True)
            )
        )
        inputs = torch.where(self.mask, self.noisy, x)
        x_0, variance_share = self.estimator.estimate_at(inputs, of_frames)
        return Estimate(self.complete(x_0), variance_share)


class KnownPixels(Known):
    """Given values of any shape, by the derivative of the estimate.

    Args:
        num_iterations: of the solver.
    """

    def __init__(
        self,
        estimator: Estimator,
        clip: Tensor,
        mask: Tensor,
        level: Level,
        num_iterations: int = 3,
    ) -> None:
        super().__init__(estimator, clip, mask, level)
        self.num_iterations = num_iterations

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        with torch.enable_grad():
            inputs = x.detach().requires_grad_()
            x_0, variance_share = self.estimator.estimate_at(inputs, level)
            bounded = level.bounded()
            scale = expand(bounded.sigma.square() / bounded.alpha, x)

            def covariance(v: Tensor) -> Tensor:
                (gradient,) = torch.autograd.grad(x_0, inputs, v, retain_graph=True)
                return scale * gradient

            difference = (self.clip - x_0.detach()) * self.mask
            x_0 = x_0.detach() + self._propagate(covariance, difference)
        share = None if variance_share is None else variance_share.detach()
        return Estimate(self.complete(x_0), share)

    def _propagate(self, covariance: Callable[[Tensor], Tensor], difference: Tensor) -> Tensor:
        """Return V w for each clip, where w leaves the least residual of (r^2 + M V M) w =
        difference over the Krylov space (generalised conjugate residuals).

        A network's derivative is not symmetric, and far from V at the noisiest levels, where
        conjugate gradients diverge; here the residual never grows.
        """
        ratio = float(self.level.sigma / self.level.alpha)
        change, residual = torch.zeros_like(difference), difference
        earlier: list[tuple[Tensor, Tensor]] = []  # V d and (r^2 + M V M) d, the latter orthonormal
        for _ in range(self.num_iterations):
            spread = covariance(residual)
            image = ratio**2 * residual + spread * self.mask
            for old_spread, old_image in earlier:
                share = _dot(old_image, image)
                spread, image = spread - share * old_spread, image - share * old_image
            length = _dot(image, image).sqrt().clamp(min=TINY)
            spread, image = spread / length, image / length
            step = _dot(image, residual)
            change, residual = change + step * spread, residual - step * image
            earlier.append((spread, image))
        return change


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the product (B, 1, ..) of each clip's values."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.dim() - 1))
