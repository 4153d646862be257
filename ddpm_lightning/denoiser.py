"""The denoiser: network + process + objective under one contract, for training and sampling.

    denoise_at(x, level) = c_skip x + c_out F(x / sqrt(m), log-SNR),   m = alpha^2 s_d^2 + sigma^2

is the estimate of x_0 given x ~ N(alpha x_0, sigma^2 I), with clips standardised to mean 0 and
standard deviation s_d = 1/2. The network sees log-SNR, never the step index, so that processes and
schedules are exchangeable under one network.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.statistics import DATA_STD, Statistics
from ddpm_lightning.tensors import combine, expand, moved


class Estimate(NamedTuple):
    """An estimate of x_0 (B, ...) and, where the network has learned it, where between the
    conditional and the upper one the reverse step's log-variance lies, 0 to 1 for each value.
    """

    x_0: Tensor
    variance_share: Tensor | None


class Estimator(Protocol):
    """The contract of what samplers and likelihoods call: a process and estimates of x_0.

    All x are standardised; what needs the range of bytes converts by `statistics`.
    """

    @property
    def process(self) -> GaussianProcess: ...

    @property
    def statistics(self) -> Statistics: ...

    def estimate_at(self, x: Tensor, level: Level) -> Estimate: ...


class Denoiser(nn.Module):
    """Estimates x_0 from a noisy clip at any level.

    Args:
        network: maps x (B, C, F, H, W) and log-SNR (B,) or (B, F), with conditions as keywords, to
            (B, C, F, H, W); or to twice as many channels, of which the second half is the learned
            variance.
        process: gives the levels that are trained and sampled at.
        objective: what the network predicts.
        statistics: of the training clips; by default clips of [-1, 1] are left as they are.
        conditions: turn what is known of clips into vectors and tokens of the network, by name.
        condition_dropout: see Conditions.
    """

    def __init__(
        self,
        network: nn.Module,
        process: GaussianProcess,
        objective: Objective,
        statistics: Statistics | None = None,
        conditions: Mapping[str, Condition] | None = None,
        condition_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.objective = objective
        self.statistics = statistics or Statistics()
        self.conditions = Conditions(conditions, condition_dropout)

    def denoise_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Tensor:
        """Return the x_0 estimate (B, ...) from x = alpha x_0 + sigma noise.

        Args:
            x: (B, ...).   level: of x, () or (B,), or of its frames, (B, F).
            conditions: of the network for the B clips, such as vectors (B, vector_width) and tokens
                (B, L, token_width) of UNet3D; `self.conditions` encodes them.
        """
        return self.estimate_at(x, level, **conditions).x_0

    def estimate_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Estimate:
        """Return the x_0 estimate and, if there is one, the learned variance; see denoise_at."""
        bounded = level.bounded()
        c_skip, c_out, scale = moved(x, *self.objective.scaling(bounded), _input_scale(bounded))
        output, variance_share = self._predict(x, scale, bounded.log_snr, conditions)
        return Estimate(combine(c_skip, x, c_out, output), variance_share)

    def score_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Tensor:
        """Return the score (B, ...), the gradient of the log-density of x.

        It is -z / sigma with z = (x - alpha D) / sigma, by Tweedie's formula: every objective is a
        score model in this view.
        """
        x_0 = self.denoise_at(x, level, **conditions)
        variance = level.sigma.square()
        return combine(level.alpha / variance, x_0, -1 / variance, x)

    def loss(self, x_0: Tensor, level: Level, noise: Tensor, **conditions: Tensor) -> Tensor:
        """Return the mean squared error on the objective's target: (B,), or (B, F) of frames.

        Args:
            x_0, noise: (B, ...).   level: (B,), or (B, F) with x_0 (B, C, F, H, W).
        """
        return self._loss(x_0, level, noise, conditions)[0]

    def loss_and_estimate(
        self, x_0: Tensor, level: Level, noise: Tensor, **conditions: Tensor
    ) -> tuple[Tensor, Estimate]:
        """Return the loss as in `loss`, and the estimate that the same call gives."""
        loss, x_t, output, variance_share = self._loss(x_0, level, noise, conditions)
        c_skip, c_out = self.objective.scaling(level.bounded())
        return loss, Estimate(combine(c_skip, x_t, c_out, output), variance_share)

    def _loss(
        self, x_0: Tensor, level: Level, noise: Tensor, conditions: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the loss, x_t and the network's answer.

        The target (x_0 - c_skip x_t) / c_out is formed from x_0 and noise with coefficients in
        float64, so that nothing is divided by a small alpha in float32.
        """
        bounded = level.bounded()
        c_skip, c_out = self.objective.scaling(bounded)
        of_x_0 = (1 - c_skip * level.alpha) / c_out
        of_noise = -c_skip * level.sigma / c_out
        coefficients = (of_x_0, of_noise, _input_scale(bounded), bounded.log_snr)
        *own, of_x_0, of_noise, scale, log_snr = moved(x_0, *level, *coefficients)
        target = combine(of_x_0, x_0, of_noise, noise)
        x_t = Level(*own).diffuse(x_0, noise)
        output, variance_share = self._predict(x_t, scale, log_snr, conditions)
        error = F.mse_loss(output, target, reduction="none")
        loss = error.flatten(1).mean(1) if level.log_snr.dim() < 2 else error.mean((1, 3, 4))
        return loss, x_t, output, variance_share

    def squared_error_per_loss(self, level: Level) -> Tensor:
        """Return c_out^2, shaped like the level: this times the loss is the mean squared error of
        the x_0 estimate.
        """
        return self.objective.scaling(level.bounded()).c_out.square()

    def _predict(
        self, x: Tensor, scale: Tensor, log_snr: Tensor, conditions: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        scaled = (expand(scale, x) * x).contiguous()
        output: Tensor = self.network(scaled, _per_sample(log_snr, x), **conditions)
        output = output.to(x.dtype)
        if output.shape == x.shape:
            return output, None
        if output.dim() < 2 or output.shape[1] != 2 * x.shape[1]:
            raise ValueError(
                f"the network must answer {tuple(x.shape)} with that shape or with twice the "
                f"channels, got {tuple(output.shape)}"
            )
        output, variance = output.chunk(2, dim=1)
        return output, torch.sigmoid(variance)


def _input_scale(level: Level) -> Tensor:
    """Return 1 / sqrt(m), shaped like the level."""
    m = level.alpha.square() * DATA_STD**2 + level.sigma.square()
    return m.rsqrt()


def _per_sample(log_snr: Tensor, x: Tensor) -> Tensor:
    """Return log-SNR (B,), or (B, F), like x. No view, which would be compiled once more."""
    if not log_snr.dim():  # without waiting for the device
        return torch.full((len(x),), float(log_snr), device=x.device, dtype=x.dtype)
    on_device = log_snr.to(device=x.device, dtype=x.dtype, non_blocking=True)
    return on_device.expand(x.shape[0], *on_device.shape[1:]).clone()
