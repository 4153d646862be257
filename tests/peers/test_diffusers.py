"""Our samplers walk the same states as the schedulers of diffusers.

Both start from the same x and are answered by the same exact denoiser; every state of the walk is
compared. Where the two libraries differ in convention:

    time    their step i has been noised i + 1 times: it is our t = i + 1, and t = 0 is data.
    end     at abar = 1, our t = 0, or at the first abar of their table, our t = 1. Which of the two
            is set by set_alpha_to_one or by final_sigmas_type.
    scale   Euler's and Heun's schedulers walk x / alpha; what they scale for the network is x.
    tables  theirs are float32, and so are coefficients made from them, of which those of third
            order keep two digits. They are filled in anew in float64, so that methods are compared.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.level import Level
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.noise.linear import LinearSchedule
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.dpmpp_2m import DPMpp2MSampler
from ddpm_lightning.samplers.euler import EulerSampler
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.thresholding import (
    DynamicThresholding,
    NoThresholding,
    StaticThresholding,
    Thresholding,
)
from ddpm_lightning.samplers.unipc import UniPCSampler
from tests.problems import Mixture

diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")

T = 100
SHAPE = (3, 1, 2, 3, 3)
# Above the log-SNR floor at T, which our walks do not start below.
SCHEDULES = {
    "linear": LinearSchedule(T, 1e-4, 0.02, max_beta=0.999),
    "cosine": CosineSchedule(T, 0.008, max_beta=0.9),
}
every_schedule = pytest.mark.parametrize("noise", SCHEDULES)
# Both say no more than which levels are walked.
every_spacing = pytest.mark.parametrize(
    ("timestep_spacing", "noise"), [("leading", "linear"), ("trailing", "cosine")]
)

ROUND_OFF = 1e-10  # of a walk in float64
FLOAT32_STATES = 1e-5  # of one whose states they round to float32: 6e-8, times its sensitivity


def problem(noise: str) -> tuple[Mixture, Tensor]:
    """Three modes, two of them beyond [-1, 1]; and noise to start from, seed 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    process = StandardProcess(SCHEDULES[noise])
    return Mixture(process, [0.3, 0.5, 0.2], [-1.6, 0.2, 1.4], [0.3, 0.4, 0.3]), x


def scaled_up(data: Mixture, x: Tensor, times: Tensor) -> Tensor:
    """x / alpha at the start of a walk."""
    return x / data.process.level(times[0]).alpha


def peer(name: str, noise: str, num_steps: int, end: int = 0, **options: Any) -> Any:
    """The scheduler for these betas, ready to walk, with its tables in float64."""
    betas = SCHEDULES[noise].betas()
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=T, trained_betas=betas.tolist(), **options
    )
    scheduler.set_timesteps(num_steps)
    alpha_bar = (1 - betas).cumprod(0)
    levels = ((1 - alpha_bar) / alpha_bar).sqrt()
    last = levels[:1] if end else torch.zeros(1).double()
    tables = {
        "alphas_cumprod": alpha_bar,
        "final_alpha_cumprod": alpha_bar[0] if end else torch.ones(()).double(),
        "sigmas": torch.cat([levels[scheduler.timesteps.long()], last]),
    }
    for name_of_table in tables.keys() & vars(scheduler).keys():
        table = getattr(scheduler, name_of_table).double()
        torch.testing.assert_close(table, tables[name_of_table], rtol=1e-4, atol=0)
        setattr(scheduler, name_of_table, tables[name_of_table])
    return scheduler


def our_times(scheduler: Any, end: int = 0) -> Tensor:
    """Their timesteps, each once, counted as we do."""
    return torch.cat([scheduler.timesteps.long().unique().flip(0) + 1, torch.tensor([end])])


def their_walk(
    scheduler: Any, data: Mixture, x: Tensor, share: Tensor | None = None, **options: Any
) -> list[Tensor]:
    """Every x that they show the network, and the last one."""
    states = []
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        states.append(seen)
        level = data.process.level(int(t) + 1)
        output = (seen - level.alpha * data.denoise_at(seen, level)) / level.sigma  # epsilon
        if share is not None:
            output = torch.cat([output, 2 * share - 1], dim=1)  # theirs goes from -1 to 1
        x = scheduler.step(output, t, x, **options).prev_sample
    return [*states, x]


def our_walk(
    sampler: Sampler, data: Estimator, x: Tensor, times: Tensor, draw: Callable[[], Tensor]
) -> list[Tensor]:
    """The same, along falling times."""
    states: list[Tensor] = []
    end = sampler.walk(data, x, times, draw, lambda state: states.append(state.x))
    return [*states[: len(times) - 1], end]


def draws(dtype: torch.dtype = torch.float64) -> Callable[[], Tensor]:
    """Noise as a generator of seed 1 gives it."""
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.randn(SHAPE, generator=generator, dtype=dtype).double()


def seed_1() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def no_noise() -> Tensor:
    raise AssertionError("a deterministic walk draws no noise")


def assert_same_states(theirs: list[Tensor], ours: list[Tensor], atol: float) -> None:
    assert len(theirs) == len(ours)
    worst = max(float((a - b).abs().max()) for a, b in zip(theirs, ours, strict=True))
    print(f"largest difference: {worst:.1e}")
    assert ours[0].std() > 0.5  # the walk starts from noise,
    assert (ours[-1] - ours[0]).abs().max() > 0.3  # goes somewhere,
    assert worst <= atol


# Ancestral sampling


@every_schedule
@pytest.mark.parametrize(
    ("variance_type", "variance"), [("fixed_small", 0.0), ("fixed_large", 1.0)]
)
def test_ddpm_is_ancestral(variance_type: str, variance: float, noise: str) -> None:
    """Leading timesteps: the last one is our t = 1, from where both go to the estimate itself.

    From a later one their upper variance would leave noise in the data.
    """
    data, x = problem(noise)
    theirs = peer("DDPMScheduler", noise, 20, variance_type=variance_type, clip_sample=False)
    ours = AncestralSampler(20, UniformTimeGrid(), NoThresholding(), variance)
    assert_same_states(
        their_walk(theirs, data, x, generator=seed_1()),
        our_walk(ours, data, x, our_times(theirs), draws()),
        ROUND_OFF,
    )


class WithShare:
    """A denoiser that has learned the variance: the same share of the way everywhere."""

    def __init__(self, data: Mixture, share: Tensor) -> None:
        self.data, self.share = data, share
        self.process, self.statistics = data.process, data.statistics

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        return Estimate(self.data.denoise_at(x, level), self.share)


@every_schedule
def test_ddpm_with_learned_variance_is_ancestral(noise: str) -> None:
    data, x = problem(noise)
    share = torch.linspace(0, 1, x.numel(), dtype=torch.float64).reshape(SHAPE)
    theirs = peer("DDPMScheduler", noise, 20, variance_type="learned_range", clip_sample=False)
    ours = AncestralSampler(20, UniformTimeGrid(), NoThresholding(), variance=None)
    assert_same_states(
        their_walk(theirs, data, x, share, generator=seed_1()),
        our_walk(ours, WithShare(data, share), x, our_times(theirs), draws()),
        ROUND_OFF,
    )


@pytest.mark.parametrize(
    ("options", "thresholding"),
    [
        ({"clip_sample": True}, StaticThresholding(1.0)),
        # Of 18 values the quantile at 14 / 17 is one of them, so that nothing is interpolated.
        (
            {"thresholding": True, "dynamic_thresholding_ratio": 14 / 17, "sample_max_value": 9.0},
            DynamicThresholding(1.0, 14 / 17),
        ),
    ],
)
@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_thresholding_is_theirs(
    name: str, options: dict[str, Any], thresholding: Thresholding
) -> None:
    """Theirs of DDIM keeps the noise of the estimate before it was held, unless told not to."""
    data, x = problem("linear")
    theirs = peer(name, "linear", 20, **options)
    step_options: dict[str, dict[str, Any]] = {
        "DDPMScheduler": {"generator": seed_1()},
        "DDIMScheduler": {"use_clipped_model_output": True},
    }
    ours: Sampler = {
        "DDPMScheduler": AncestralSampler(20, UniformTimeGrid(), thresholding, variance=0.0),
        "DDIMScheduler": DDIMSampler(20, UniformTimeGrid(), thresholding, eta=0.0),
    }[name]
    states = our_walk(ours, data, x, our_times(theirs), draws())
    assert_same_states(their_walk(theirs, data, x, **step_options[name]), states, ROUND_OFF)
    ours.thresholding = NoThresholding()
    free = our_walk(ours, data, x, our_times(theirs), draws())
    assert (free[-1] - states[-1]).abs().max() > 0.1


# DDIM and Euler


@pytest.mark.parametrize(
    ("eta", "end", "noise"),
    [
        *((0.0, 0, "linear"), (0.0, 1, "cosine"), (0.5, 0, "cosine"), (0.5, 1, "linear")),
        *((1.0, 0, "linear"), (1.0, 1, "cosine")),
    ],
)
def test_ddim_is_ddim(eta: float, end: int, noise: str) -> None:
    """Trailing timesteps, so that the last step is as long as the others."""
    data, x = problem(noise)
    theirs = peer(
        "DDIMScheduler",
        noise,
        20,
        end,
        timestep_spacing="trailing",
        set_alpha_to_one=not end,
        clip_sample=False,
    )
    ours = DDIMSampler(20, UniformTimeGrid(), NoThresholding(), eta)
    assert_same_states(
        their_walk(theirs, data, x, eta=eta, generator=seed_1()),
        our_walk(ours, data, x, our_times(theirs, end), draws()),
        ROUND_OFF,
    )


@every_spacing
def test_euler_is_euler_and_ddim(timestep_spacing: str, noise: str) -> None:
    """Without churn: theirs adds it only after the network was called."""
    data, x = problem(noise)
    theirs = peer("EulerDiscreteScheduler", noise, 20, timestep_spacing=timestep_spacing)
    times = our_times(theirs)
    states = their_walk(theirs, data, scaled_up(data, x, times), generator=seed_1())
    for sampler in (
        EulerSampler(20, UniformTimeGrid(), NoThresholding(), 0.0, 0.0, 0.0, 1.0),
        DDIMSampler(20, UniformTimeGrid(), NoThresholding(), eta=0.0),
    ):
        assert_same_states(states, our_walk(sampler, data, x, times, no_noise), FLOAT32_STATES)


@every_spacing
def test_ancestral_euler_is_ancestral(timestep_spacing: str, noise: str) -> None:
    data, x = problem(noise)
    theirs = peer("EulerAncestralDiscreteScheduler", noise, 20, timestep_spacing=timestep_spacing)
    ours = AncestralSampler(20, UniformTimeGrid(), NoThresholding(), variance=0.0)
    times = our_times(theirs)
    assert_same_states(
        their_walk(theirs, data, scaled_up(data, x, times), generator=seed_1()),
        our_walk(ours, data, x, times, draws()),
        FLOAT32_STATES,
    )


# Higher order


@pytest.mark.parametrize(
    ("end", "timestep_spacing", "noise"),
    [(0, "leading", "linear"), (1, "trailing", "cosine"), (0, "linspace", "cosine")],
)
@pytest.mark.parametrize(
    ("algorithm_type", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)]
)
def test_dpm_solver_is_dpmpp_2m(
    algorithm_type: str, eta: float, timestep_spacing: str, end: int, noise: str
) -> None:
    """The last step to data is of first order in both; one to abar_1 is so in neither, since 20
    steps are more than 14.
    """
    data, x = problem(noise)
    theirs = peer(
        "DPMSolverMultistepScheduler",
        noise,
        20,
        end,
        algorithm_type=algorithm_type,
        timestep_spacing=timestep_spacing,
        final_sigmas_type="sigma_min" if end else "zero",
    )
    ours = DPMpp2MSampler(20, UniformTimeGrid(), NoThresholding(), eta)
    assert_same_states(
        their_walk(theirs, data, x, generator=seed_1()),
        our_walk(ours, data, x, our_times(theirs, end), draws(torch.float32)),
        FLOAT32_STATES,
    )


@pytest.mark.parametrize(
    ("predictor_order", "end", "timestep_spacing", "noise"),
    [
        *((1, 0, "leading", "linear"), (1, 1, "linspace", "cosine")),
        *((2, 0, "trailing", "cosine"), (2, 0, "linspace", "linear"), (2, 1, "leading", "cosine")),
        *((3, 1, "trailing", "linear"), (3, 1, "leading", "cosine")),
    ],
)
def test_unipc_is_unipc(predictor_order: int, end: int, timestep_spacing: str, noise: str) -> None:
    """On the way to data theirs lowers the order of the last step but one to 2, where ours lowers
    that of the last step alone: order 3 is compared on the way to abar_1, where none is lowered.
    """
    data, x = problem(noise)
    theirs = peer(
        "UniPCMultistepScheduler",
        noise,
        20,
        end,
        solver_order=predictor_order,
        timestep_spacing=timestep_spacing,
        lower_order_final=not end,
        final_sigmas_type="sigma_min" if end else "zero",
    )
    ours = UniPCSampler(20, UniformTimeGrid(), NoThresholding(), predictor_order)
    assert_same_states(
        their_walk(theirs, data, x),
        our_walk(ours, data, x, our_times(theirs, end), no_noise),
        ROUND_OFF,
    )
