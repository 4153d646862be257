"""The denoiser: network + process + objective under one contract, for training and sampling.

    denoise_at(x, alpha, sigma) = c_skip x + c_out F(x / sqrt(m), log-SNR)
                              m = alpha^2 s_d^2 + sigma^2

is the estimate of x_0 given x ~ N(alpha x_0, sigma^2 I). The network sees log-SNR, never the step
index, so that processes and schedules are exchangeable under one network.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess, Marginal, Time
from ddpm_lightning.tensors import combine, expand

# Conditioning and coefficients are held within +-20: float32 squares alpha / sigma.
MAX_LOG_SNR = 20.0


class Estimate(NamedTuple):
    """What a denoiser says of x: x_0 (B, ...), and, where the network has learned it, where between
    the conditional and the upper one the reverse step's log-variance lies, 0 to 1 for each value.
    """

    x_0: Tensor
    variance_share: Tensor | None


class Denoiser(nn.Module):
    """Estimates x_0.

    Args:
        network: maps x (B, C, F, H, W) and log-SNR (B,), with `conditions` as keywords, to
            (B, C, F, H, W); or to twice as many channels, of which the second half is the learned
            variance (network.outputs=2).
        process: gives alpha_t and sigma_t.
        objective: what the network predicts.
        data_std: s_d, the standard deviation of the data, which scales the network's input.
    """

    def __init__(
        self, network: nn.Module, process: GaussianProcess, objective: Objective, data_std: float
    ) -> None:
        super().__init__()
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}; 0.5 suits natural clips")
        self.network = network
        self.process = process
        self.objective = objective
        self.data_std = data_std
        self.conditions: dict[str, Tensor] = {}
        self._input: Tensor | None = None

    def conditioned(self, **conditions: Tensor) -> "Denoiser":
        """The same network, told the conditions at every call: samplers, losses and likelihoods
        take it as any other denoiser.

        Args:
            conditions: vectors (B, vector_width) and tokens (B, L, token_width) of UNet3D, for the
                B clips of every later call.
        """
        denoiser = Denoiser(self.network, self.process, self.objective, self.data_std)
        denoiser.conditions = conditions
        return denoiser

    def denoise(self, x_t: Tensor, t: Time) -> Tensor:
        """x_0 estimate (B, ...) from x_t (B, ...) at times t, () or (B,)."""
        return self.denoise_at(x_t, *self.process.marginal(t))

    def denoise_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_0 estimate (B, ...) from x = alpha x_0 + sigma noise; alpha, sigma float64, () or
        (B,).
        """
        return self.estimate_at(x, alpha, sigma).x_0

    def estimate_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        """As denoise_at, with the learned variance."""
        bounded = _bounded(alpha, sigma)
        c_skip, c_out = self.objective.scaling(*bounded)
        output, variance_share = self._predict(x, bounded)
        return Estimate(combine(c_skip, x, c_out, output), variance_share)

    def score_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Of the density of x, gradient (B, ...) of its logarithm: -z / sigma, z = (x - alpha D) /
        sigma, by Tweedie's formula. Every objective is a score model in this view.
        """
        x_0 = self.denoise_at(x, alpha, sigma)
        return combine(alpha / sigma.square(), x_0, -1 / sigma.square(), x)

    def loss(self, x_0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Mean squared error on the objective's target, per sample: (B,).

        Args:
            x_0, noise: (B, ...).   t: (B,) times.
        """
        return self.loss_and_estimate(x_0, t, noise)[0]

    def loss_and_estimate(self, x_0: Tensor, t: Time, noise: Tensor) -> tuple[Tensor, Estimate]:
        """The loss (B,), and the estimate that one call of the network gives beside it.

        The target (x_0 - c_skip x_t) / c_out is formed from x_0 and noise with coefficients in
        float64, so that nothing is divided by a small alpha in float32.
        """
        alpha, sigma = self.process.marginal(t)
        bounded = _bounded(alpha, sigma)
        c_skip, c_out = self.objective.scaling(*bounded)
        of_x_0 = (1 - c_skip * alpha) / c_out
        of_noise = -c_skip * sigma / c_out
        target = combine(of_x_0, x_0, of_noise, noise)
        x_t = self.process.diffuse(x_0, t, noise)
        output, variance_share = self._predict(x_t, bounded)
        loss = (output - target).square().flatten(1).mean(1)
        return loss, Estimate(combine(c_skip, x_t, c_out, output), variance_share)

    def squared_error_per_loss(self, t: Time) -> Tensor:
        """c_out^2 (B,): the x_0 estimate's mean squared error is this times the loss."""
        bounded = _bounded(*self.process.marginal(t))
        return self.objective.scaling(*bounded).c_out.square()

    def _room(self, x: Tensor) -> Tensor | None:
        """Without gradients the network's input is written over the last one, call after call."""
        if torch.is_grad_enabled():
            return None
        last = self._input
        if (
            last is None
            or _kind(last) != _kind(x)
            or last.is_inference() != torch.is_inference_mode_enabled()
        ):
            # Contiguous whatever x is: one compiled network serves validation and samplers.
            self._input = last = torch.empty_like(x, memory_format=torch.contiguous_format)
        return last

    def _predict(self, x: Tensor, bounded: Marginal) -> tuple[Tensor, Tensor | None]:
        alpha, sigma = bounded
        m = alpha.square() * self.data_std**2 + sigma.square()
        log_snr = 2 * (alpha.log() - sigma.log())
        if log_snr.dim():
            level = log_snr.to(device=x.device, dtype=x.dtype, non_blocking=True)
            level = level.expand(len(x)).clone()  # no view: a compiled network would be made again
        else:
            level = torch.full((len(x),), float(log_snr), device=x.device, dtype=x.dtype)
        scaled = torch.mul(x, expand(m.rsqrt(), x), out=self._room(x))
        output: Tensor = self.network(scaled, level, **self.conditions)
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


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


def _bounded(alpha: Tensor, sigma: Tensor) -> Marginal:
    """(alpha, sigma) with log-SNR held within +-MAX_LOG_SNR by raising the smaller of the two."""
    ratio = torch.tensor(-MAX_LOG_SNR / 2, dtype=torch.float64).exp()
    return Marginal(torch.maximum(alpha, sigma * ratio), torch.maximum(sigma, alpha * ratio))
