"""Our samplers walk the same states as those of k_diffusion, and our EDM losses are its losses.

It knows noise levels alone: y = x_0 + s noise, which is our x / alpha at s = sigma / alpha. On the
Karras schedule these are levels of ours, and the last one, s = 0, is our t = 0. Its exact denoiser
is ours at alpha = 1. All is in float64, in which both libraries work from end to end.
"""

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec, module_from_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser, Estimate, Estimator
from ddpm_lightning.level import Level
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.edm import EDMLoss
from ddpm_lightning.losses.min_snr import MinSNRLoss
from ddpm_lightning.losses.simple import SimpleLoss
from ddpm_lightning.losses.soft_min_snr import SoftMinSNRLoss
from ddpm_lightning.noise.karras import KarrasSchedule
from ddpm_lightning.objectives.karras import KarrasObjective
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.dpmpp_2m import DPMpp2MSampler
from ddpm_lightning.samplers.dpmpp_3m import DPMpp3MSampler
from ddpm_lightning.samplers.euler import EulerSampler
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.thresholding import NoThresholding
from ddpm_lightning.statistics import DATA_STD, Statistics
from tests.problems import Gaussian, Mixture, denoise, loss_at


def peer(name: str) -> Any:
    """k_diffusion.name, without the package's own imports, some of which fail or are not needed."""
    spec = find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k_diffusion is not installed", allow_module_level=True)
    sys.modules.setdefault("k_diffusion", module_from_spec(spec))  # a package that has not run
    return pytest.importorskip(f"k_diffusion.{name}", reason="needs k_diffusion")


sampling = peer("sampling")

T = 20  # as many steps
SHAPE = (3, 1, 2, 3, 3)
SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
GRID = UniformTimeGrid(), NoThresholding()  # the walks bring their own times
ROUND_OFF = 1e-10  # of a walk in float64
every_rho = pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])


def karras(rho: float, num_steps: int = T, sigma_min: float = SIGMA_MIN) -> StandardProcess:
    return StandardProcess(KarrasSchedule(num_steps, sigma_min, SIGMA_MAX, rho, max_beta=0.9999))


def falling_times(process: GaussianProcess, end: int = 0) -> Tensor:
    return torch.arange(process.num_steps, end - 1, -1)


def three_modes() -> Mixture:
    return Mixture(karras(7.0), [0.3, 0.5, 0.2], [-1.6, 0.2, 1.4], [0.3, 0.4, 0.3])


def levels(process: GaussianProcess, times: Tensor) -> Tensor:
    """sigma / alpha."""
    alpha, sigma, _ = process.level(times)
    return sigma / alpha


def their_walk(
    sampler: Callable[..., Tensor], data: Estimator, y: Tensor, times: Tensor, **options: Any
) -> list[Tensor]:
    """alpha y before every step and at the end."""
    states: list[Tensor] = []

    def denoiser(y: Tensor, sigma: Tensor) -> Tensor:
        return data.estimate_at(y, Level.of(torch.ones_like(sigma), sigma)).x_0

    end = sampler(
        denoiser,
        y,
        levels(data.process, times),
        callback=lambda state: states.append(state["x"]),
        disable=True,
        **options,
    )
    alphas = data.process.level(times).alpha
    return [alpha * state for alpha, state in zip(alphas, [*states, end], strict=True)]


def our_walk(
    sampler: Sampler, data: Estimator, y: Tensor, times: Tensor, noise: Iterable[Tensor] = ()
) -> list[Tensor]:
    """The same."""
    states: list[Tensor] = []
    draw = iter(noise).__next__
    x = y * data.process.level(times[0]).alpha
    end = sampler.walk(data, x, times, draw, lambda state: states.append(state.x))
    return [*states[: len(times) - 1], end]


def start() -> Tensor:
    """y at the noisiest level; seed 0."""
    generator = torch.Generator().manual_seed(0)
    return SIGMA_MAX * torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def draws() -> list[Tensor]:
    """Noise for every step; seed 1."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(T)]


def in_turn(noise: Iterable[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A noise sampler: of two levels, which it has no need of."""
    noise = iter(noise)
    return lambda sigma, sigma_next: next(noise)


def assert_same_states(theirs: list[Tensor], ours: list[Tensor]) -> None:
    assert len(theirs) == len(ours)
    worst = max(float((a - b).abs().max()) for a, b in zip(theirs, ours, strict=True))
    print(f"largest difference: {worst:.1e}")
    assert ours[0].std() > 0.5  # the walk starts from noise,
    assert (ours[-1] - ours[0]).abs().max() > 0.3  # goes somewhere,
    assert worst <= ROUND_OFF


@every_rho
def test_karras_levels_are_theirs(rho: float) -> None:
    """Theirs are float32, 6e-8 of the largest level: that bounds the error of the smallest."""
    process = karras(rho)
    theirs = sampling.get_sigmas_karras(T, SIGMA_MIN, SIGMA_MAX, rho).double()
    ours = levels(process, falling_times(process))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# Walks


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("sample_euler", EulerSampler(T, *GRID, 0.0, 0.0, 0.0, 1.0)),
        ("sample_euler", DDIMSampler(T, *GRID, eta=0.0)),
        ("sample_dpmpp_2m", DPMpp2MSampler(T, *GRID, eta=0.0)),
    ],
)
def test_deterministic_walks_are_theirs(name: str, sampler: Sampler) -> None:
    data, y = three_modes(), start()
    times = falling_times(data.process)
    theirs = their_walk(getattr(sampling, name), data, y, times)
    assert_same_states(theirs, our_walk(sampler, data, y, times))


@pytest.mark.parametrize(
    ("name", "eta", "sampler"),
    [
        ("sample_euler_ancestral", 1.0, AncestralSampler(T, *GRID, variance=0.0)),
        ("sample_euler_ancestral", 1.0, DDIMSampler(T, *GRID, eta=1.0)),
        ("sample_euler_ancestral", 0.5, DDIMSampler(T, *GRID, eta=0.5)),
        ("sample_dpmpp_2m_sde", 1.0, DPMpp2MSampler(T, *GRID, eta=1.0)),
        ("sample_dpmpp_2m_sde", 0.5, DPMpp2MSampler(T, *GRID, eta=0.5)),
    ],
)
def test_stochastic_walks_are_theirs(name: str, eta: float, sampler: Sampler) -> None:
    data, y = three_modes(), start()
    times = falling_times(data.process)
    theirs = their_walk(
        getattr(sampling, name), data, y, times, eta=eta, noise_sampler=in_turn(draws())
    )
    assert_same_states(theirs, our_walk(sampler, data, y, times, draws()))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e9), (0.05, 50.0)])
@pytest.mark.parametrize("churn", [2.0, 40.0])  # gamma = 0.1, and the greatest, sqrt(2) - 1
def test_walks_with_churn_are_theirs(churn: float, low: float, high: float) -> None:
    """They draw noise at every step, from torch's own generator, and use it where there is churn;
    we draw where it is used.
    """
    data, y = three_modes(), start()
    times = falling_times(data.process)
    churned = (low <= levels(data.process, times)) & (levels(data.process, times) <= high)
    used = [noise for noise, c in zip(draws(), churned[:-1], strict=True) if c]
    arguments = churn, low, high, 1.003
    sampler = EulerSampler(T, *GRID, *arguments)
    options = dict(zip(("s_churn", "s_tmin", "s_tmax", "s_noise"), arguments, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = their_walk(sampling.sample_euler, data, y, times, **options)
    assert_same_states(theirs, our_walk(sampler, data, y, times, used))


# Where we differ: the third order


class Parabola:
    """An estimator that says l^2 of everything, l = log(alpha / sigma).

    The flow is then y_s - G(l_s) = exp(l_t - l_s) (y_t - G(l_t)), with G(l) = l^2 - 2 l + 2.
    """

    def __init__(self, process: GaussianProcess) -> None:
        self.process, self.statistics = process, Statistics()

    def estimate_at(self, x: Tensor, level: Level) -> Estimate:
        log_ratio = level.log_snr / 2
        return Estimate(log_ratio.flatten()[0].square().expand_as(x), None)


def beyond_the_flow(states: list[Tensor], process: GaussianProcess) -> Tensor:
    """y after every step minus the exact flow from y before it; the last step is to sigma_min."""
    times = falling_times(process, end=1)
    log_ratio = -levels(process, times).log()
    y = torch.stack([x.flatten()[0] for x in states]) / process.level(times).alpha
    apart = y - (log_ratio.square() - 2 * log_ratio + 2)
    return apart[1:] - (-log_ratio.diff()).exp() * apart[:-1]


@every_rho
def test_dpmpp_3m_takes_the_whole_second_difference_and_theirs_half_of_it(rho: float) -> None:
    """An estimate that is quadratic in l is integrated exactly, once there are three of them.

    Its second difference contributes m_2 = int_0^h exp(u - h) u^2 du; theirs adds m_2 / 2.
    """
    data = Parabola(karras(rho))
    times = falling_times(data.process, end=1)
    ours = our_walk(DPMpp3MSampler(T, *GRID), data, start(), times)
    theirs = their_walk(
        sampling.sample_dpmpp_3m_sde, data, start(), times, eta=0.0, noise_sampler=in_turn([])
    )
    h = -levels(data.process, times).log().diff()
    m_2 = h.square() - 2 * (h + torch.expm1(-h))
    missing = -m_2[2:] / 2
    # Differences of numbers up to 100.
    steps = beyond_the_flow(ours, data.process)[2:], beyond_the_flow(theirs, data.process)[2:]
    torch.testing.assert_close(steps[0], torch.zeros_like(missing), rtol=0, atol=1e-11)
    torch.testing.assert_close(steps[1], missing, rtol=0, atol=1e-11)
    assert missing.abs().max() > 0.01


def test_dpmpp_3m_converges_at_third_order_and_theirs_at_second() -> None:
    """From level 80 to 0.05, against the exact flow of Gaussian data; rho = 7."""
    errors = []
    for num_steps in (65, 129, 257):
        data = Gaussian(karras(7.0, num_steps, sigma_min=0.05), mean=0.3, std=0.5)
        times = falling_times(data.process, end=1)
        y = SIGMA_MAX * torch.linspace(-2, 2, 9, dtype=torch.float64)
        exact = data.flow(y * data.process.level(num_steps).alpha, num_steps, 1)
        ours = our_walk(DPMpp3MSampler(num_steps, *GRID), data, y, times)
        theirs = their_walk(
            sampling.sample_dpmpp_3m_sde, data, y, times, eta=0.0, noise_sampler=in_turn([])
        )
        errors.append([float((states[-1] - exact).abs().max()) for states in (ours, theirs)])
    slopes = -torch.tensor(errors).log2().diff(dim=0)
    print(f"slopes, ours and theirs: {slopes.tolist()}")
    torch.testing.assert_close(slopes, torch.tensor([[3.0, 2.0]] * 2), rtol=0, atol=0.25)


# Losses


class Network(nn.Module):
    """Some function of the input and of the noise level, as log-SNR or as sigma."""

    def __init__(self, of_sigma: bool) -> None:
        super().__init__()
        self.of_sigma = of_sigma

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        log_snr = -2 * level.log() if self.of_sigma else level
        return (1.7 * x + log_snr.reshape(-1, 1, 1, 1, 1) / 10).sin()


@pytest.mark.parametrize(
    ("name", "options", "loss"),
    [
        ("Denoiser", {"weighting": "karras"}, EDMLoss()),
        ("Denoiser", {"weighting": "karras"}, SimpleLoss()),
        ("Denoiser", {"weighting": "soft-min-snr"}, SoftMinSNRLoss(DATA_STD**-2)),
        ("SimpleLossDenoiser", {}, MinSNRLoss(gamma=1e9)),
    ],
)
def test_losses_are_theirs(name: str, options: dict[str, str], loss: Loss) -> None:
    """All of a network under EDM's preconditioning; seed 2.

    `karras` weighs the error of its target evenly; the simple loss is the error of the noise, SNR
    times that of x_0, which is where min-SNR leads to without a bound.
    """
    process = karras(7.0)
    t = torch.arange(1, T + 1)
    generator = torch.Generator().manual_seed(2)
    x_0, noise = torch.randn((2, T, *SHAPE[1:]), generator=generator, dtype=torch.float64)
    theirs = getattr(peer("layers"), name)(Network(of_sigma=True), DATA_STD, **options)
    ours = Denoiser(Network(of_sigma=False), process, KarrasObjective())
    sigma = levels(process, t)
    expected = theirs.loss(x_0, noise, sigma)
    torch.testing.assert_close(loss_at(loss, ours, x_0, t, noise), expected, rtol=1e-10, atol=0)
    y = x_0 + sigma.reshape(-1, 1, 1, 1, 1) * noise
    estimate = denoise(ours, process.diffuse(x_0, t, noise), t)
    torch.testing.assert_close(estimate, theirs(y, sigma), rtol=0, atol=1e-12)
