"""Problems with known answers, and the members of the conf groups.

A member of a group is built from its own file: whatever is added to conf/ is tested from then on.
A Mixture is one-dimensional data whose denoiser E[x_0 | x_t] is known exactly.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.base import GaussianProcess, Time
from ddpm_lightning.processes.continuous import ContinuousProcess, VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.run.config import words
from ddpm_lightning.run.config.words import CONF
from ddpm_lightning.statistics import Statistics

Process = TypeVar("Process", bound=GaussianProcess)
# Classes of processes that are constructed from a schedule.
ScheduledType = type[AutoregressiveProcess] | type[ContinuousProcess]

OF_EVALUATE = ("likelihood", "measure", "extractor")  # groups of evaluate.py alone
OF_SHOW = ("film",)  # of show.py
TOGETHER = (  # groups whose files keep to their own node
    *("extractor", "loss", "network", "noise", "objective", "times"),
    *("sampler", "sampler/grid", "sampler/thresholding"),
)
NEEDED = {"condition/text": "condition=caption"}  # what has a group that is not always there
FLOOR = log_snr_floor((1,))  # of clips of one value, as those of a Mixture
options = words.options  # names of the members of a conf group
NOISES = ["cosine", "hybrid"]  # steep at the end; not monotone, with steps that add no noise


def noises() -> list[Any]:
    """All schedules as parameters, for what concerns schedules; those beyond three are slow."""
    fast, slow = ("linear", *NOISES), pytest.mark.slow
    return [n if n in fast else pytest.param(n, marks=slow) for n in options("noise")]


def networks() -> list[Any]:
    """All presets as parameters: those beyond the smallest are slow, those beyond two long."""
    marks: dict[str, Any] = {"unet3d_tiny": (), "unet3d_small": pytest.mark.slow}
    return [pytest.param(n, marks=marks.get(n, pytest.mark.long)) for n in options("network")]


@cache
def composed(*words: str) -> DictConfig:
    """Return a command's configuration under overrides: evaluate.py's and show.py's for what they
    alone have.
    """
    needed = [NEEDED[group] for word in words if (group := word.split("=")[0]) in NEEDED]
    first = words[0] if words else ""
    of_others = {"evaluate": OF_EVALUATE, "show": OF_SHOW}
    command = next((c for c, groups in of_others.items() if first.startswith(groups)), "config")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [*needed, *words])


@cache
def composed_alone(group: str, name: str, *words: str) -> DictConfig:
    """Return the configuration of conf/group/name.yaml with the nodes that it refers to."""
    if not words and group in TOGETHER and name in _members(group):
        config = OmegaConf.create()
        OmegaConf.update(config, group.replace("/", "."), _members(group)[name])
        OmegaConf.set_struct(config, True)  # as composed: a key that is not there is refused
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(f"{group}/{name}", list(words))
    with open_dict(config):
        for key in {"data", "model", "seed", "times"} - config.keys():
            config[key] = composed()[key]
        if group == "measure":
            config["extractor"] = composed_alone("extractor", "pixels").extractor
    return config


@cache
def _members(group: str) -> Any:
    """Return the nodes, not resolved, of all files of conf/group that choose no package: to compose
    them together takes hardly longer than one of them, 0.2 s.
    """
    names = [
        n for n in options(group) if "@package" not in (CONF / group / f"{n}.yaml").read_text()
    ]
    words = [f"+{group}@members.{name}={name}" for name in names]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(overrides=words).members)


def build(group: str, name: str, *words: str, **overrides: Any) -> Any:
    """The object that conf/group/name.yaml describes.

    Args:
        words: further overrides, such as sampler/grid=karras.   overrides: values for its keys.
    """
    own = all(group.split("/", maxsplit=1)[0] in word.split("=")[0] for word in words)
    if own and group != "data":
        config = composed_alone(group, name, *words)
    else:  # overrides of another group, which a file of data may have
        config = composed(f"{group}={name}", *words)
    node = OmegaConf.select(config, group.replace("/", "."))
    written: Any = OmegaConf.to_container(node)
    try:
        node.update(overrides)
        return instantiate(node, _convert_="all")
    except InstantiationException as e:
        raise e.__cause__ or e from None  # what the constructor itself said
    finally:  # configurations are kept
        node.update({key: value for key, value in written.items() if key in overrides})


def process_under(process_type: type[Process], noise: str, num_steps: int = 1000) -> Process:
    """A process under a schedule of the conf group; shared by tests, so that it is made once."""
    return _process(process_type, noise, num_steps)


@cache
def _process(process_type: type[GaussianProcess], noise: str, num_steps: int) -> Any:
    return process_type(build("noise", noise, num_steps=num_steps))


class ThirdOrderProcess(AutoregressiveProcess):
    """What a user would write: an AR(3) chain in three lines."""

    def weights(self, r: Tensor) -> Tensor:
        return r[:, None] * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


class Betas(NoiseSchedule):
    """A schedule from a list."""

    def __init__(self, betas: Sequence[float]) -> None:
        super().__init__(len(betas))
        self._betas = torch.tensor(betas, dtype=torch.float64)

    def betas(self) -> Tensor:
        return self._betas


def enrolled_processes() -> list[ScheduledType]:
    """Return the process classes that the files of conf/model name, each once."""
    nodes = [OmegaConf.load(CONF / "model" / f"{name}.yaml") for name in options("model")]
    paths = dict.fromkeys(node.denoiser.process._target_ for node in nodes)
    return [get_class(path) for path in paths]


PROCESSES = enrolled_processes()
CHAINS = [kind for kind in PROCESSES if issubclass(kind, AutoregressiveProcess)]
CONTINUOUS = [kind for kind in PROCESSES if issubclass(kind, ContinuousProcess)]
# Unlike one another in what samplers, losses and times depend on: a Markov chain, a chain that is
# neither Markov nor variance preserving nor monotone, and real times.
EXAMPLES: list[tuple[ScheduledType, str]] = [
    (StandardProcess, "cosine"),
    (MedianProcess, "hybrid"),
    (VariancePreservingProcess, "linear"),
]
# What the laws of processes are tested on: each under both schedules, but for a continuous process,
# which is a function of the schedule's log alpha, under the steeper one alone.
every_case = pytest.mark.parametrize(
    ("process_type", "noise"),
    [
        (kind, noise)
        for kind in (*PROCESSES, ThirdOrderProcess)
        for noise in NOISES
        if kind not in CONTINUOUS or noise == "hybrid"
    ],
)
every_chain = pytest.mark.parametrize("process_type", [*CHAINS, ThirdOrderProcess])
every_noise = pytest.mark.parametrize("noise", NOISES)
every_example = pytest.mark.parametrize(("process_type", "noise"), EXAMPLES)
# Those, and the continuous processes of another scale.
every_kind = pytest.mark.parametrize(
    ("process_type", "noise"),
    [*EXAMPLES, *((k, "cosine") for k in CONTINUOUS if k is not VariancePreservingProcess)],
)


def denoise(denoiser: Denoiser, x_t: Tensor, t: Time) -> Tensor:
    """Return the x_0 estimate at a time of the denoiser's process."""
    return denoiser.denoise_at(x_t, denoiser.process.level(t))


def loss_at(loss: Loss, denoiser: Denoiser, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return a loss at times of the denoiser's process."""
    return loss(denoiser, x_0, t, denoiser.process.level(t), noise)


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
        self.statistics = Statistics()
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.means = torch.tensor(means, dtype=torch.float64)
        self.stds = torch.tensor(stds, dtype=torch.float64)
        self.num_calls = 0

    def denoise(self, x_t: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t], like x_t."""
        return self.denoise_at(x_t, self.process.level(t))

    def denoise_at(self, x: Tensor, level: Level) -> Tensor:
        """Return the components' posterior means, weighted by their posteriors."""
        self.num_calls += 1
        alpha, sigma = (v.reshape(-1, *[1] * x.dim()) if v.dim() else v for v in level[:2])
        variance = (alpha * self.stds).square() + sigma.square()
        distance = x.double()[..., None] - alpha * self.means  # (..., components)
        likelihood = self.weights.log() - (variance.log() + distance.square() / variance) / 2
        means = self.means + alpha * self.stds.square() / variance * distance
        return (likelihood.softmax(-1) * means).sum(-1).to(x.dtype)

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return Estimate(self.denoise_at(x, level), None)

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(num_samples,) of the data, float64."""
        k = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        noise = torch.randn(num_samples, dtype=torch.float64, generator=generator)
        return self.means[k] + self.stds[k] * noise

    def quantiles(self, num: int) -> Tensor:
        """(num,) of the data at (i + 1/2) / num, float64, by bisection."""
        wanted = (torch.arange(num, dtype=torch.float64) + 0.5) / num
        low = (self.means - 8 * self.stds).min().expand(num)
        high = (self.means + 8 * self.stds).max().expand(num)
        for _ in range(60):
            middle = (low + high) / 2
            z = (middle[:, None] - self.means) / self.stds
            below = (self.weights * torch.special.ndtr(z)).sum(-1) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    def distance(self, x: Tensor) -> float:
        """Wasserstein-1 of samples (N,) to the data itself."""
        return float((x.double().sort().values - self.quantiles(len(x))).abs().mean())


class Gaussian(Mixture):
    """Data N(mean, std^2), whose probability-flow ODE has a closed form."""

    def __init__(self, process: GaussianProcess, mean: float, std: float) -> None:
        super().__init__(process, [1.0], [mean], [std])
        self.mean, self.std = mean, std

    def flow(self, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """x_s on the ODE's path through x_t: the same quantile of the marginal at s, float64."""
        (mean_s, std_s), (mean_t, std_t) = self.moments(s), self.moments(t)
        return mean_s + (x_t.double() - mean_t) * (std_s / std_t)

    def moments(self, t: Time) -> tuple[float, float]:
        """Mean and standard deviation of x_t."""
        alpha, sigma = map(float, self.process.level(t)[:2])
        return alpha * self.mean, ((alpha * self.std) ** 2 + sigma**2) ** 0.5


def trimodal(process: GaussianProcess) -> Mixture:
    """Three narrow modes of different width, within [-1, 1]."""
    return Mixture(process, [0.3, 0.5, 0.2], [-0.8, 0.1, 0.7], [0.05, 0.1, 0.03])
