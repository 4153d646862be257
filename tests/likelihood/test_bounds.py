"""Variational bounds, against closed forms for Gaussian data with the exact denoiser."""

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.likelihood.base import BIN_WIDTH, mean_and_error
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.state import state_law
from ddpm_lightning.samplers.grids.karras import KarrasGrid
from ddpm_lightning.samplers.noise import per_sample_generators
from tests.likelihood.problems import STD, TRUTH, gaussian, representative
from tests.problems import (
    CHAINS,
    CONTINUOUS,
    FLOOR,
    NOISES,
    build,
    every_example,
    every_kind,
    options,
    process_under,
)

BOUNDS = ["variational", "pair"]

every_bound = pytest.mark.parametrize("name", BOUNDS)


def bound(name: str, num_terms: int | None, grid: str = "uniform_t", discrete: bool = False) -> Any:
    measure = build("likelihood", name, num_terms=num_terms, discrete=discrete)
    measure.grid = build("sampler/grid", grid)
    return measure


def least_error(snr: Tensor) -> Tensor:
    """Mean squared error of the best estimate of x_0."""
    return STD**2 / (1 + STD**2 * snr)


def expected(name: str, process: GaussianProcess, times: Tensor) -> float:
    """The bound's mean over the data, nats per value, in closed form."""
    noisy = times[:-1]
    if name == "pair":
        snr = state_law(process, noisy).snr()
        weights = snr.diff()
    else:
        snr = process.log_snr(noisy).exp()
        step = process.conditional(noisy[1:], noisy[:-1])
        weights = step.of_x_0.square() / step.variance
    prior = snr[0] / 2 * STD**2
    steps_nats = (weights / 2 * least_error(snr[:-1])).sum()
    decoder = (2 * torch.pi / snr[-1]).log() / 2 + snr[-1] / 2 * least_error(snr[-1])
    return float(prior + steps_nats + decoder)


@pytest.mark.slow
@every_kind
@every_bound
def test_bound_is_what_its_terms_are_worth(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    """20 terms, 5,000 values, seed 0: within 5 standard errors of the closed form."""
    data = gaussian(process_under(process_type, noise))
    measure = bound(name, 20)
    nats = measure.nats(data, representative(5_000, 1), torch.Generator().manual_seed(0)).total
    mean, error = mean_and_error(nats)
    assert mean == pytest.approx(
        expected(name, data.process, measure.times(data.process, FLOOR)), abs=5 * error
    )


@every_example
@every_bound
def test_bound_is_above_the_truth(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise)
    for num_terms in (1, 2, 10, 100):
        times = bound(name, num_terms).times(process, FLOOR)
        assert len(times) == num_terms + 1
        assert expected(name, process, times) > TRUTH


@every_bound
def test_bound_is_above_the_truth_along_every_grid(name: str) -> None:
    process = process_under(MedianProcess, "hybrid")
    for grid in options("sampler/grid"):
        times = bound(name, 10, grid).times(process, FLOOR)
        assert expected(name, process, times) > TRUTH, grid


def test_the_grid_is_chosen_by_a_word() -> None:
    measure = build("likelihood", "variational", "sampler/grid@likelihood.grid=karras")
    assert isinstance(measure.grid, KarrasGrid)


def test_gap_closes_at_first_order_on_the_continuous_process() -> None:
    """Terms even in log-SNR, 16 to 512 of them: slope 1 by least squares, in closed form.

    The prior's share and the decoder's, at log-SNR -10 and 9, are below 1e-4 nats.
    """
    process = process_under(VariancePreservingProcess, "linear")
    counts = torch.tensor([16, 32, 64, 128, 256, 512])
    gaps = torch.tensor(
        [
            expected(
                "variational",
                process,
                bound("variational", int(n), "uniform_log_snr").times(process, FLOOR),
            )
            - TRUTH
            for n in counts
        ]
    )
    x, y = counts.double().log(), gaps.double().log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert slope == pytest.approx(-1, abs=0.25)


@pytest.mark.parametrize(
    ("name", "chain", "num_steps", "bits"),
    [
        ("variational", MedianProcess, 1000, 2.45),
        ("pair", MedianProcess, 1000, 0.40),
        pytest.param("variational", StandardProcess, 4000, 0.50, marks=pytest.mark.slow),
    ],
)
def test_gaps_of_the_chains_at_single_steps_are_the_known_ones(
    name: str, chain: type[GaussianProcess], num_steps: int, bits: float
) -> None:
    """Linear noise, data N(0, 1/4)."""
    process = process_under(chain, "linear", num_steps)
    times = bound(name, None).times(process, FLOOR)
    gap = (expected(name, process, times) - TRUTH) / log(2)
    assert gap == pytest.approx(bits, abs=0.01)


@pytest.mark.parametrize("noise", NOISES)
def test_whole_states_bound_the_median_chain_more_tightly(noise: str) -> None:
    process = process_under(MedianProcess, noise)
    gaps = [
        expected(name, process, bound(name, None).times(process, FLOOR)) - TRUTH for name in BOUNDS
    ]
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("process_type", [StandardProcess, *CONTINUOUS])
def test_pair_bound_of_a_markov_process_is_the_variational_one(
    process_type: type[GaussianProcess],
) -> None:
    """Term by term, on the same noise; seed 0."""
    data = gaussian(process_under(process_type, "cosine"))
    x = representative(50, 3)
    terms = [
        bound(name, 10).nats(data, x, torch.Generator().manual_seed(0)).terms for name in BOUNDS
    ]
    assert terms[0].keys() == terms[1].keys()
    for one, other in zip(terms[0].values(), terms[1].values(), strict=True):
        # The decoder's log(2 pi v) cancels against the squared error: 1e-9 of either
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_terms_are_named_and_add_up() -> None:
    data = gaussian(StandardProcess(build("noise", "linear", num_steps=4, end=0.001)))
    nats = bound("variational", None).nats(data, representative(5, 2, 3))
    assert list(nats.terms) == ["prior", "3 from 4", "2 from 3", "1 from 2", "decoder"]
    torch.testing.assert_close(nats.total, sum(nats.terms.values()))
    torch.testing.assert_close(nats.bits, nats.total / log(2))
    assert nats.total.shape == (5,)


@every_bound
def test_8_bit_bound_is_the_density_times_a_bin_where_bins_are_narrow(name: str) -> None:
    """A chain that starts at sigma = 0.2: the decoder is even over a bin, to (0.008 / 0.2)^2 / 24.

    Values within 0.9: the outermost bins are open. Seed 0, same noise.
    """
    data = gaussian(StandardProcess(build("noise", "linear", num_steps=3, start=0.0001)))
    x = (representative(100, 5).clamp(-0.9, 0.9) * 127.5).round() / 127.5
    results = [
        bound(name, None, discrete=discrete).nats(data, x, torch.Generator().manual_seed(0)).total
        for discrete in (True, False)
    ]
    torch.testing.assert_close(results[0], results[1] - log(BIN_WIDTH), rtol=0, atol=1e-3)


@every_bound
@pytest.mark.parametrize("process_type", CHAINS)
def test_a_clip_with_its_own_generator_does_not_depend_on_its_batch(
    name: str, process_type: type[GaussianProcess]
) -> None:
    data = gaussian(process_under(process_type, "cosine"))
    x = representative(4, 1, 2, 3, 3)
    whole = bound(name, 5).nats(data, x, per_sample_generators(0, range(4))).total
    alone = bound(name, 5).nats(data, x[1:2], per_sample_generators(0, [1])).total
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-12, atol=0)


@every_bound
def test_no_term_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="num_terms must be at least 1, or null for all, got 0"):
        bound(name, 0)


def test_standard_error_is_that_of_a_mean() -> None:
    mean, error = mean_and_error(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert mean == 3.0
    assert error == pytest.approx((14 / 3) ** 0.5 / 2)
