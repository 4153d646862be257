"""Laws of time sampling: which noise levels are trained, and how evenly."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.times.base import TimeSampling
from tests.problems import (
    FLOOR,
    build,
    every_example,
    options,
    process_under,
)

every_times = pytest.mark.parametrize("name", options("times"))

STRATIFIED = [name for name in options("times") if build("times", name).stratified]


def draws(name: str, process: GaussianProcess, batch_size: int, num_batches: int = 1) -> Tensor:
    """(num_batches, batch_size); seed 0."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(num_batches, batch_size, dtype=torch.float64, generator=generator)
    sampling: TimeSampling = build("times", name)
    place = torch.arange(batch_size)
    return torch.stack([sampling.draw(process, row, place, batch_size, FLOOR) for row in uniform])


def end_of(process: GaussianProcess) -> Tensor:
    """Return the noisiest time that is informative."""
    return process.informative_time(torch.tensor([0.0, 1 - 1e-12]).double(), FLOOR).max()


def fraction_of(process: GaussianProcess, t: Tensor) -> Tensor:
    """Where t lies between data and the end of what is informative; the middle of a whole step."""
    end = end_of(process)
    return (t - 0.5) / end if isinstance(end.item(), int) else 1 - t / end


@every_example
@every_times
def test_times_lie_above_data_and_within_what_is_informative(
    name: str, process_type: type[GaussianProcess], noise: str
) -> None:
    for num_steps in (1, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        t = draws(name, process, 100, 2)
        end = end_of(process)
        assert t.shape == (2, 100)
        assert t.dtype == end.dtype
        assert ((t > 0) & (t <= end)).all()
        log_snr = process.log_snr(t)
        assert log_snr.isfinite().all()
        # No step but the last has fallen below the floor.
        assert (log_snr[t < end] >= FLOOR).all()


def test_uniform_steps_are_drawn_equally_often() -> None:
    """16,000 independent draws over 10 steps: 1,600 each, with a standard error of 38."""
    t = draws("uniform_t", process_under(StandardProcess, "karras", 10), 8, 2000)
    counts = torch.bincount(t.flatten(), minlength=11)
    assert counts[0] == 0
    assert (counts[1:] - 1600).abs().max() < 5 * 38


def test_stratified_steps_are_drawn_equally_often() -> None:
    """As many draws, closer to even: slices of 8 over 10 steps."""
    t = draws("stratified", process_under(StandardProcess, "karras", 10), 8, 2000)
    counts = torch.bincount(t.flatten(), minlength=11)
    assert counts[0] == 0
    assert (counts[1:] - 1600).abs().max() < 5 * 38


def test_uniform_times_are_uniform_on_the_continuous_process() -> None:
    """Kolmogorov-Smirnov: 20,000 draws are within 1.95 / sqrt(n) of even but once in 1000."""
    process = process_under(VariancePreservingProcess, "cosine")
    t = draws("uniform_t", process, 20_000).flatten().sort().values / process.axis(FLOOR).last
    even = torch.arange(1, 20_001) / 20_000
    assert (t - even).abs().max() < 1.95 / 20_000**0.5


@pytest.mark.parametrize("process_type", [StandardProcess, VariancePreservingProcess])
def test_stratified_draws_visit_every_slice_once(process_type: type[GaussianProcess]) -> None:
    """400 steps (the informative ones of this chain): slices of whole steps where they divide."""
    process = process_under(process_type, "linear", 400)
    assert float(end_of(process)) == 400
    for batch_size in (1, 4, 8, 50):
        t = draws("stratified", process, batch_size, 20)
        slices = (fraction_of(process, t) * batch_size).floor().sort(1).values
        assert torch.equal(slices.long(), torch.arange(batch_size).expand(20, batch_size))


@pytest.mark.parametrize("name", STRATIFIED)
def test_stratified_quantiles_are_drawn_one_from_each_slice(name: str) -> None:
    """On the continuous process, whose quantiles are invertible."""
    process, batch_size = process_under(VariancePreservingProcess, "linear"), 7
    sampling = build("times", name)
    t = draws(name, process, batch_size, 5)
    edges = sampling.times(process, torch.arange(batch_size + 1).double() / batch_size, FLOOR)
    ascending = edges.sort().values
    for batch in t:
        counts = torch.histogram(batch, ascending).hist
        assert torch.equal(counts, torch.ones(batch_size).double())


@every_example
def test_uniform_log_snr_is_flat_as_far_as_the_steps_of_the_chain_allow(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """The share of draws below any level is that of the interval, within the widest gap between
    two usable steps, and 20,000 stratified draws add 1 / 20,000.
    """
    process = process_under(process_type, noise)
    axis = process.axis(FLOOR)
    ends = torch.tensor([axis.last, axis.first], dtype=torch.float64)
    low, high = axis.log_snr(ends).tolist()
    level = axis.log_snr(draws("uniform_log_snr", process, 20_000).flatten()).sort().values
    even = low + (torch.arange(20_000) + 0.5) / 20_000 * (high - low)
    steps = getattr(axis, "steps", torch.linspace(axis.first, axis.last, 100_000).double())
    gap = float(axis.log_snr(steps).diff().abs().max()) if len(steps) > 1 else 0.0
    assert (level - even).abs().max() <= gap / 2 + (high - low) / 20_000 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_uniform_log_snr_is_the_same_law_for_processes_matched_in_log_snr(noise: str) -> None:
    """The median chain and the standard one under its matched schedule: level by level."""
    word = f"noise@noise.process.schedule={noise}"
    median = process_under(MedianProcess, noise)
    matched = StandardProcess(build("noise", "matched", word))
    levels = [
        process.axis(FLOOR).log_snr(draws("uniform_log_snr", process, 500).flatten())
        for process in (median, matched)
    ]
    # Both take the usable steps closest to the same levels.
    torch.testing.assert_close(*levels, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "mean", "quartile"),
    [
        ("log_normal", 2.4, 0.6745 * 2.4),
        ("logit_normal", 0.0, 0.6745 * 2),
        ("laplace", 0.0, 0.3466),
    ],
)
def test_laws_of_log_snr_have_the_quartiles_of_their_papers(
    name: str, mean: float, quartile: float
) -> None:
    """log(sigma / alpha) is N(-1.2, 1.2^2); logit(s), for SNR ((1 - s) / s)^2, N(0, 1); Laplace of
    scale 1/2: log(2) / 2. Of 1 % at most are cut off by the ends of the schedule.
    """
    process = process_under(VariancePreservingProcess, "cosine")
    fraction = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    level = process.log_snr(build("times", name).times(process, fraction, FLOOR))
    expected = mean + torch.tensor([quartile, 0.0, -quartile], dtype=torch.float64)
    torch.testing.assert_close(level, expected, rtol=0, atol=0.02)


@every_times
def test_parts_of_a_batch_are_drawn_as_the_whole_is(name: str) -> None:
    """Two devices, or two passes before a step, with every second sample each."""
    process = process_under(StandardProcess, "linear")
    sampling: TimeSampling = build("times", name)
    uniform = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    place = torch.arange(8)
    whole = sampling.draw(process, uniform, place, 8, FLOOR)
    for part in (place[::2], place[1::2]):
        assert torch.equal(sampling.draw(process, uniform[part], part, 8, FLOOR), whole[part])
