"""Problems with known answers, and the members of the conf groups.

A member of a group is built from its own file: whatever is added to conf/ is tested from then on.
A Mixture is one-dimensional data whose denoiser E[x_0 | x_t] is known exactly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess

CONF = Path(__file__).parents[1] / "conf"
PROCESSES: list[type[AutoregressiveProcess]] = [StandardProcess, MedianProcess]


def options(group: str) -> list[str]:
    """Names of the members of a conf group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def build(group: str, name: str, **overrides: Any) -> Any:
    """The object that conf/group/name.yaml describes, with other values for some of its keys."""
    node = OmegaConf.load(CONF / group / f"{name}.yaml")
    try:
        return instantiate(OmegaConf.merge(node, overrides), _convert_="all")
    except InstantiationException as e:
        raise e.__cause__ or e from None  # what the constructor itself said


class Betas(NoiseSchedule):
    """A schedule from a list."""

    def __init__(self, betas: Sequence[float]) -> None:
        super().__init__(len(betas))
        self._betas = torch.tensor(betas, dtype=torch.float64)

    def betas(self) -> Tensor:
        return self._betas


class FixedOutput(nn.Module):
    """A network that answers the same to everything, and keeps what it was last asked."""

    def __init__(self, output: Tensor | float) -> None:
        super().__init__()
        self.output = torch.as_tensor(output)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.x, self.log_snr = x, log_snr
        return self.output.to(x.dtype).expand_as(x)


class Mixture:
    """Data sum_k weight_k N(mean_k, std_k^2) under a process: an Estimator, and exact."""

    def __init__(
        self,
        process: GaussianProcess,
        weights: Sequence[float],
        means: Sequence[float],
        stds: Sequence[float],
    ) -> None:
        self.process = process
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.means = torch.tensor(means, dtype=torch.float64)
        self.stds = torch.tensor(stds, dtype=torch.float64)
        self.num_calls = 0

    def denoise(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        """E[x_0 | x_t], like x_t: the components' posterior means, weighted by their posteriors."""
        self.num_calls += 1
        alpha, sigma = self.process.marginal(t)
        variance = (alpha * self.stds).square() + sigma.square()
        distance = x_t.double()[..., None] - alpha * self.means  # (..., components)
        likelihood = self.weights.log() - (variance.log() + distance.square() / variance) / 2
        means = self.means + alpha * self.stds.square() / variance * distance
        return (likelihood.softmax(-1) * means).sum(-1).to(x_t.dtype)

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(num_samples,) of the data, float64."""
        k = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        noise = torch.randn(num_samples, dtype=torch.float64, generator=generator)
        return self.means[k] + self.stds[k] * noise


class Gaussian(Mixture):
    """Data N(mean, std^2), whose probability-flow ODE has a closed form."""

    def __init__(self, process: GaussianProcess, mean: float, std: float) -> None:
        super().__init__(process, [1.0], [mean], [std])
        self.mean, self.std = mean, std

    def flow(self, x_t: Tensor, t: int, s: int) -> Tensor:
        """x_s on the ODE's path through x_t: the same quantile of the marginal at s, float64."""
        (mean_s, std_s), (mean_t, std_t) = self._moments(s), self._moments(t)
        return mean_s + (x_t.double() - mean_t) * (std_s / std_t)

    def _moments(self, t: int) -> tuple[float, float]:
        alpha, sigma = map(float, self.process.marginal(t))
        return alpha * self.mean, ((alpha * self.std) ** 2 + sigma**2) ** 0.5


def trimodal(process: GaussianProcess) -> Mixture:
    """Three narrow modes of different width, within [-1, 1]."""
    return Mixture(process, [0.3, 0.5, 0.2], [-0.8, 0.1, 0.7], [0.05, 0.1, 0.03])
