"""What a forward process is: a Gaussian chain, described by alpha_t and the covariances C[s, t].

Given x_0 every coordinate is Gaussian and independent of the others, so that

    x_t | x_0 ~ N(alpha_t x_0, sigma_t^2),   Cov(x_s, x_t | x_0) = C[s, t],   sigma_t^2 = C[t, t]

say everything, and every conditional follows by Gaussian conditioning. Variance preservation is not
assumed. Steps t and tables stay on the CPU, in float64 (alpha_T is 6e-96 under the hybrid
schedule); coefficients are cast where they meet a clip.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.tensors import expand

LOG_SNR_FLOOR = -12.0  # below it x_t tells nothing of x_0: alpha / sigma < 0.0025


class Marginal(NamedTuple):
    """x_t | x_0 ~ N(alpha x_0, sigma^2): alpha and sigma, float64, shaped like t."""

    alpha: Tensor
    sigma: Tensor


class GaussianProcess:
    """The law of a chain x_0 .. x_T, from its tables alpha (T+1,) and covariance (T+1, T+1).

    Steps t, s are integer tensors, () or (B,), or ints; 0 <= s < t <= num_steps.
    """

    def __init__(self, schedule: NoiseSchedule, alpha: Tensor, covariance: Tensor) -> None:
        self.schedule = schedule
        self.num_steps = schedule.num_steps
        self._alpha = alpha
        self._covariance = covariance
        self._sigma = covariance.diagonal().sqrt()

    def marginal(self, t: Tensor | int) -> Marginal:
        """alpha_t and sigma_t, float64, on the CPU."""
        t = self._step(t)
        return Marginal(self._alpha[t], self._sigma[t])

    def covariance(self, s: Tensor | int, t: Tensor | int) -> Tensor:
        """C[s, t] = Cov(x_s, x_t | x_0) per coordinate, float64, on the CPU."""
        return self._covariance[self._step(s), self._step(t)]

    def log_snr(self, t: Tensor | int) -> Tensor:
        """2 log(alpha_t / sigma_t), float64; infinite where nothing was added yet."""
        alpha, sigma = self.marginal(t)
        return 2 * (alpha.log() - sigma.log())

    def diffuse(self, x_0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t noise; x_0 and noise (B, ...), noise ~ N(0, I)."""
        alpha, sigma = self.marginal(t)
        return expand(alpha, x_0) * x_0 + expand(sigma, x_0) * noise

    def condition(
        self, x_0: Tensor, x_t: Tensor, s: Tensor | int, t: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """Mean and std of x_s given x_t and x_0, by Gaussian conditioning.

        Args:
            x_0, x_t: (B, ...).   s, t: steps, 0 <= s < t.
        Returns:
            mean (B, ...), std shaped to broadcast against it; std is 0 at s = 0.
        For the standard process this is Ho et al. 2020, eq. 6-7.
        """
        return gaussian_condition(
            x_0,
            x_t,
            self.marginal(t),
            alpha_s=self.marginal(s).alpha,
            variance_s=self.covariance(s, s),
            covariance=self.covariance(s, t),
        )

    @property
    def prior_std(self) -> float:
        """sigma_T: the chain ends at N(0, prior_std^2 I)."""
        return float(self._sigma[-1])

    def informative_steps(self, floor: float = LOG_SNR_FLOOR) -> int:
        """The first step at which log-SNR has fallen to the floor, or num_steps if none has.

        Training and sampling stay within 1..informative_steps: what lies beyond is pure noise.
        """
        below = (self.log_snr(torch.arange(self.num_steps + 1)) <= floor).nonzero()
        return int(below[0]) if len(below) else self.num_steps

    def _step(self, t: Tensor | int) -> Tensor:
        return torch.as_tensor(t, device="cpu")


def gaussian_condition(
    x_0: Tensor,
    x_t: Tensor,
    marginal: Marginal,
    alpha_s: Tensor,
    variance_s: Tensor,
    covariance: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean and std of y ~ N(alpha_s x_0, variance_s) given x_t; covariance: of y and x_t."""
    alpha_t, sigma_t = marginal
    variance_t = sigma_t.square()
    # A step that has added no noise is x_0 itself: there is nothing to condition on.
    gain = torch.where(variance_t > 0, covariance / variance_t, 0.0)
    std = (variance_s - gain * covariance).clamp(min=0).sqrt()
    mean = expand(alpha_s - gain * alpha_t, x_t) * x_0 + expand(gain, x_t) * x_t
    return mean, expand(std, x_t)
