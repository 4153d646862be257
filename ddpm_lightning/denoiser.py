"""The denoiser: network + process + objective under one contract, for training and sampling.

    denoise_at(x, alpha, sigma) = c_skip x + c_out F(x / sqrt(m), log-SNR)
                              m = alpha^2 s_d^2 + sigma^2

is the estimate of x_0 given x ~ N(alpha x_0, sigma^2 I). The network sees log-SNR, never the step
index, so that processes and schedules are exchangeable under one network.
"""

import torch
from torch import Tensor, nn

from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess, Marginal
from ddpm_lightning.tensors import expand

# Conditioning and coefficients are held within +-20: float32 squares alpha / sigma.
MAX_LOG_SNR = 20.0


class Denoiser(nn.Module):
    """Estimates x_0.

    Args:
        network: maps x (B, C, F, H, W) and log-SNR (B,) to (B, C, F, H, W).
        process: gives alpha_t and sigma_t.
        objective: what the network predicts.
        data_std: s_d, the standard deviation of the data, which scales the network's input.
    """

    def __init__(
        self, network: nn.Module, process: GaussianProcess, objective: Objective, data_std: float
    ) -> None:
        super().__init__()
        if data_std <= 0:
            raise ValueError(f"data_std must be positive, got {data_std}; 0.5 suits natural clips")
        self.network = network
        self.process = process
        self.objective = objective
        self.data_std = data_std

    def denoise(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """x_0 estimate (B, ...) from x_t (B, ...) at steps t, () or (B,)."""
        return self.denoise_at(x_t, *self.process.marginal(t))

    def denoise_at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_0 estimate (B, ...) from x = alpha x_0 + sigma noise; alpha, sigma float64, () or
        (B,).
        """
        bounded = _bounded(alpha, sigma)
        c_skip, c_out = self.objective.scaling(*bounded)
        return expand(c_skip, x) * x + expand(c_out, x) * self._predict(x, bounded)

    def loss(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error on the objective's target, per sample: (B,).

        Args:
            x_0, noise: (B, ...).   t: (B,) integer steps.
        The target (x_0 - c_skip x_t) / c_out is formed from x_0 and noise with coefficients in
        float64, so that nothing is divided by a small alpha in float32.
        """
        alpha, sigma = self.process.marginal(t)
        bounded = _bounded(alpha, sigma)
        c_skip, c_out = self.objective.scaling(*bounded)
        of_x_0 = expand((1 - c_skip * alpha) / c_out, x_0)
        of_noise = expand(-c_skip * sigma / c_out, x_0)
        target = of_x_0 * x_0 + of_noise * noise
        prediction = self._predict(self.process.diffuse(x_0, t, noise), bounded)
        return (prediction - target).square().flatten(1).mean(1)

    def squared_error_per_loss(self, t: Tensor) -> Tensor:
        """c_out^2 (B,): the x_0 estimate's mean squared error is this times the loss."""
        bounded = _bounded(*self.process.marginal(t))
        return self.objective.scaling(*bounded).c_out.square()

    def _predict(self, x: Tensor, bounded: Marginal) -> Tensor:
        alpha, sigma = bounded
        m = alpha.square() * self.data_std**2 + sigma.square()
        log_snr = (2 * (alpha.log() - sigma.log())).to(device=x.device, dtype=x.dtype)
        output: Tensor = self.network(x / expand(m.sqrt(), x), log_snr.expand(len(x)))
        return output.to(x.dtype)


def _bounded(alpha: Tensor, sigma: Tensor) -> Marginal:
    """(alpha, sigma) with log-SNR held within +-MAX_LOG_SNR by raising the smaller of the two."""
    ratio = torch.tensor(-MAX_LOG_SNR / 2, dtype=torch.float64).exp()
    return Marginal(torch.maximum(alpha, sigma * ratio), torch.maximum(sigma, alpha * ratio))
