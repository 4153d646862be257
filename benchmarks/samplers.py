"""Sampler overhead beside diffusers': what a step costs without its network.

    python benchmarks/samplers.py

50 evaluations of a network that answers at once, on clips of 4x3x16x64x64, one CPU thread. Both
sides are given the noise prediction, clip x_0 to [-1, 1] and draw their own noise; they take turns,
and the median of all rounds counts: fresh memory, and with it the system, decides much of it. Times
include the network's input scaling on our side, which diffusers leaves to the caller. Then, how
long a process's tables take.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.noise.linear import LinearSchedule
from ddpm_lightning.objectives.epsilon import EpsilonObjective
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.dpmpp_2m import DPMpp2MSampler
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding

SHAPE = (4, 3, 16, 64, 64)
EVALUATIONS = 50
ROUNDS = 15


class Instant(nn.Module):
    """A network that answers the same at once."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.answer


def ours(sampler: Sampler) -> Callable[[], Tensor]:
    process = StandardProcess(linear())
    denoiser = Denoiser(Instant(), process, EpsilonObjective())
    return lambda: sampler.sample(denoiser, SHAPE)


def theirs(scheduler: type, **options: object) -> Callable[[], Tensor]:
    network = Instant()
    steps = scheduler(1000, beta_schedule="linear", **options)

    def sample() -> Tensor:
        x = torch.randn(SHAPE)
        steps.set_timesteps(EVALUATIONS)
        for t in steps.timesteps:
            x = steps.step(network(x, t), t, x).prev_sample
        return x

    return sample


def linear() -> LinearSchedule:
    return LinearSchedule(1000, start=1e-4, end=0.02, max_beta=0.9999)


@torch.no_grad()
def typical(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one call each, the median of all rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    torch.set_num_threads(1)
    common = (EVALUATIONS, UniformTimeGrid(), StaticThresholding(1.0))
    pairs = {
        "ddim": (DDIMSampler(*common, eta=0.0), theirs(DDIMScheduler)),
        "dpmpp_2m": (
            DPMpp2MSampler(*common, eta=0.0),
            theirs(DPMSolverMultistepScheduler, thresholding=False),
        ),
        "ancestral": (AncestralSampler(*common, variance=0.0), theirs(DDPMScheduler)),
    }
    print(f"{'sampler':12}{'ours':>10}{'diffusers':>12}{'ratio':>8}   ms a step")
    for name, (sampler, peer) in pairs.items():
        seconds = typical({"ours": ours(sampler), "theirs": peer})
        a, b = (1000 * seconds[side] / EVALUATIONS for side in ("ours", "theirs"))
        print(f"{name:12}{a:10.2f}{b:12.2f}{a / b:8.2f}")
    noise = typical({"noise": lambda: torch.randn(SHAPE)})["noise"]
    print(f"{'(noise alone)':12}{1000 * noise:9.2f}\n")
    tables = typical(
        {
            "standard": lambda: StandardProcess(linear()),
            "median": lambda: MedianProcess(linear()),
            "standard, covariances": lambda: StandardProcess(linear()).covariance(1, 2),
            "median, covariances": lambda: MedianProcess(linear()).covariance(1, 2),
        }
    )
    for name, value in tables.items():
        print(f"tables, T = 1000: {name:24}{1000 * value:8.1f} ms")


if __name__ == "__main__":
    main()
