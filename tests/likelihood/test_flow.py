"""Likelihood by the probability-flow ODE, against the closed form."""

from math import log
from typing import Any

import pytest
import torch

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.likelihood.base import BIN_WIDTH
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.variance_exploding import VarianceExplodingProcess
from ddpm_lightning.samplers.noise import per_sample_generators
from tests.likelihood.problems import STD, TRUTH, density_nats, gaussian, representative
from tests.problems import EXAMPLES, FixedOutput, build, options, process_under, trimodal

pytestmark = pytest.mark.slow  # as a whole: equations are solved

every_solver = pytest.mark.parametrize("solver", options("likelihood/solver"))
every_probe = pytest.mark.parametrize("probe", options("likelihood/probe"))


def flow(solver: str = "rk45", probe: str = "rademacher", discrete: bool = False) -> Any:
    words = [f"likelihood/solver={solver}", f"likelihood/probe={probe}"]
    return build("likelihood", "flow", *words, discrete=discrete)


@pytest.mark.parametrize(
    ("solver", "process_type", "noise"),
    [
        *(("rk45", *example) for example in EXAMPLES),
        *(("heun", *example) for example in [*EXAMPLES[1:], (VarianceExplodingProcess, "cosine")]),
    ],
)
def test_bits_are_within_a_thousandth_of_the_truth(
    solver: str, process_type: type[GaussianProcess], noise: str
) -> None:
    """Rademacher's probe is exact here: a value's velocity depends on no other value.

    Measured: at most 4e-5 with Runge-Kutta, whose tolerance is 1e-5; 1.8e-4 with 100 Heun steps.
    """
    data = gaussian(process_under(process_type, noise))
    bits = flow(solver).nats(data, representative(100, 2, 1)).bits
    assert float(bits.mean()) == pytest.approx(TRUTH / log(2), abs=1e-3)


@every_probe
def test_each_clip_has_its_own_density(probe: str) -> None:
    """log-SNR -12 at the end: what the prior leaves out is below 1e-5.

    With Gaussian probes the divergence of n values is off by sqrt(2 / n) of its integral, here
    log((x_T's std) / (x_0's std)) = log 2 nats a value, in both directions: 5 of those.
    """
    data = gaussian(StandardProcess(build("noise", "cosine")))
    x = representative(20, 1, 4, 10, 10)
    nats = flow(probe=probe).nats(data, x, torch.Generator().manual_seed(0)).total
    tolerance = 1e-4 if probe == "rademacher" else 5 * (2 / 400) ** 0.5 * log(2)
    torch.testing.assert_close(nats, density_nats(x, STD**2), rtol=0, atol=tolerance)
    if probe == "gaussian":
        assert (nats - density_nats(x, STD**2)).abs().max() > 1e-3  # it is an estimate


def test_a_mixture_is_as_likely_as_it_is() -> None:
    """Modes of std 0.03 to 0.1 against sigma / alpha = 1e-3 at the start: (1e-3 / 0.03)^2 / 2."""
    data = trimodal(MedianProcess(build("noise", "cosine")))
    x = torch.tensor([-0.85, -0.8, 0.0, 0.1, 0.25, 0.7, 0.72], dtype=torch.float64)[:, None]
    log_density = torch.logsumexp(
        data.weights.log()
        - ((x - data.means) / data.stds).square() / 2
        - (data.stds * (2 * torch.pi) ** 0.5).log(),
        dim=1,
    )
    nats = flow().nats(data, x).total
    torch.testing.assert_close(nats, -log_density, rtol=0, atol=5e-3)


def test_8_bit_values_are_as_likely_as_their_bins() -> None:
    """Averaged over all clips; a density so smooth is even over a bin, to its width squared."""
    data = gaussian(StandardProcess(build("noise", "linear")))
    x = (representative(400, 10) * 127.5).round() / 127.5
    nats = flow(discrete=True).nats(data, x, torch.Generator().manual_seed(0)).total
    expected = density_nats(x, STD**2) - log(BIN_WIDTH)
    # Each of 4,000 values moves by up to half a bin, its density by x / STD^2 of that.
    tolerance = 5 * (BIN_WIDTH / 12**0.5 / STD) / 4000**0.5 + 1e-4
    assert float((nats - expected).mean()) == pytest.approx(0, abs=tolerance)


@every_solver
def test_a_network_in_float32_is_measured_alike(solver: str) -> None:
    data = gaussian(StandardProcess(build("noise", "cosine")))
    x = representative(50, 1, 2, 3, 3)
    exact = flow(solver).nats(data, x).total
    single = flow(solver).nats(data, x.float()).total
    # The velocity divides differences of order 1e-7 by sigma = 1e-3 at the start.
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-3)


def test_a_clip_with_its_own_generator_does_not_depend_on_its_batch() -> None:
    """With fixed steps; adaptive ones are chosen for the batch."""
    data = gaussian(StandardProcess(build("noise", "cosine")))
    x = representative(4, 1, 2, 3, 3)
    whole = flow("heun", "gaussian").nats(data, x, per_sample_generators(0, range(4))).total
    alone = flow("heun", "gaussian").nats(data, x[2:3], per_sample_generators(0, [2])).total
    torch.testing.assert_close(whole[2:3], alone, rtol=1e-12, atol=0)


def test_weights_receive_no_gradient() -> None:
    """Only the input is differentiated."""
    process = StandardProcess(build("noise", "cosine"))
    output = torch.zeros(2, 1, 2, 3, 3, requires_grad=True)
    denoiser = Denoiser(FixedOutput(output), process, build("objective", "velocity"))
    nats = flow("heun").nats(denoiser, representative(2, 1, 2, 3, 3).float()).total
    assert not nats.requires_grad
    assert output.grad is None


@pytest.mark.parametrize(("solver", "key"), [("heun", "num_steps"), ("rk45", "tolerance")])
def test_a_solver_without_steps_or_tolerance_is_refused(solver: str, key: str) -> None:
    words = [f"likelihood/solver={solver}", f"likelihood.solver.{key}=0"]
    with pytest.raises(ValueError, match=f"{key} must be .*, got 0"):
        build("likelihood", "flow", *words)
