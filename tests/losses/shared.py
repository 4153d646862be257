"""Networks that learn, for the tests of losses."""

import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from tests.problems import CONF, build, composed, options

SHAPE = (1, 2, 3, 3)
FLOOR = log_snr_floor((1, *SHAPE))

LOSSES = options("loss")


class Affine(nn.Module):
    """w x + b cos(log-SNR), per output; in a dtype of its own, as under autocast."""

    def __init__(self, num_outputs: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(0.3, -0.4, num_outputs, dtype=torch.float64))
        self.b = nn.Parameter(torch.linspace(0.1, 0.2, num_outputs, dtype=torch.float64))
        self.dtype = dtype

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        x, wave = x.to(self.dtype), log_snr.cos().reshape(-1, 1, 1, 1, 1).to(self.dtype)
        w, b = self.w.to(self.dtype), self.b.to(self.dtype)
        return torch.cat([w[i] * x + b[i] * wave for i in range(len(w))], dim=1)


def denoiser(
    process: GaussianProcess,
    objective: str,
    num_outputs: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Denoiser:
    return Denoiser(Affine(num_outputs, dtype), process, build("objective", objective))


def data_and_noise(num_samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clips of 8-bit values in [-1, 1], and noise; float64."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(256, (num_samples, *SHAPE), generator=generator)
    noise = torch.randn(num_samples, *SHAPE, generator=generator, dtype=torch.float64)
    return values.double() / 127.5 - 1, noise


def outputs_of(loss: str) -> int:
    """Return the network's output channels for each of a clip's, as configured with this loss."""
    own = "network" in (CONF / "loss" / f"{loss}.yaml").read_text()  # else it is left as it is
    network = composed(*[f"loss={loss}"] * own).network
    return int((network.out_channels or network.channels) / network.channels)
