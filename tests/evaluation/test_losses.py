"""Fixed pairs, and losses in bins of log-SNR."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.losses import (
    LOG_SNR_EDGES,
    LossByLogSNR,
    bin_names,
    fixed_pairs,
)
from ddpm_lightning.losses.simple import SimpleLoss
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.times.uniform_t import UniformTime
from tests.problems import FLOOR, PROCESSES, FixedOutput, build, every_example, process_under

SHAPE = (1, 2, 4, 4)
NUM_CLIPS = 20

every_process = pytest.mark.parametrize("process_type", PROCESSES)


SIMPLE, TIMES = SimpleLoss(), UniformTime()


def make(process: GaussianProcess, objective: str = "epsilon") -> Denoiser:
    return Denoiser(FixedOutput(0.1), process, build("objective", objective))


def clips() -> Tensor:
    """(NUM_CLIPS, F, H, W, C) uint8; seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (NUM_CLIPS, 2, 4, 4, 1), generator=generator, dtype=torch.uint8)


def measured(denoiser: Denoiser, batch_size: int, num_draws: int) -> LossByLogSNR:
    losses = LossByLogSNR(SIMPLE, TIMES)
    places = torch.arange(NUM_CLIPS).split(batch_size)
    for x_0, index in zip(to_float(clips()).split(batch_size), places, strict=True):
        losses.update(denoiser, x_0, index, num_draws)
    return losses


@every_process
def test_pairs_depend_on_the_index_alone(process_type: type[GaussianProcess]) -> None:
    process = process_under(process_type, "cosine")
    index = torch.tensor([7, 0, 3, 12])
    t, noise = fixed_pairs(TIMES, process, index, 1, 4, SHAPE)
    for i in range(4):
        t_alone, noise_alone = fixed_pairs(TIMES, process, index[i : i + 1], 1, 4, SHAPE)
        assert torch.equal(t_alone[0], t[i])
        assert torch.equal(noise_alone[0], noise[i])


def test_pairs_of_different_clips_and_draws_differ() -> None:
    process = process_under(StandardProcess, "linear")
    pairs = [fixed_pairs(TIMES, process, torch.arange(5), draw, 3, SHAPE) for draw in range(3)]
    assert len({int(t) for ts, _ in pairs for t in ts}) == 15
    noise = torch.cat([noise for _, noise in pairs]).flatten(1)
    assert (torch.cdist(noise, noise) + 1e9 * torch.eye(15)).min() > 1


@every_example
@pytest.mark.parametrize("num_steps", [1, 2, 50, 1000])
def test_pairs_are_spread_evenly_over_the_informative_times(
    process_type: type[GaussianProcess], noise: str, num_steps: int
) -> None:
    """Multiples of the golden ratio: n of them are within 1 + log2(n) of even on every interval."""
    process = process_under(process_type, noise, num_steps)
    axis = process.axis(FLOOR)
    num_pairs = 800
    t = torch.cat(
        [
            fixed_pairs(TIMES, process, torch.arange(num_pairs // 4), draw, 4, (1,))[0]
            for draw in range(4)
        ]
    )
    assert t.min() > 0
    # Of a chain all usable steps, of a continuous process some times.
    ends = getattr(axis, "steps", torch.linspace(0.1, 1, 10).double() * axis.last)
    share = torch.arange(1, len(ends) + 1) / len(ends)
    count = (t[:, None] <= ends).sum(0)
    assert (count - num_pairs * share).abs().max() <= 1 + torch.tensor(num_pairs).log2()


def test_noise_of_pairs_is_standard_normal() -> None:
    process = process_under(StandardProcess, "linear")
    _, noise = fixed_pairs(TIMES, process, torch.arange(400), 0, 1, (10, 10))
    error = noise.numel() ** -0.5
    assert abs(float(noise.mean())) < 5 * error
    assert abs(float(noise.var()) - 1) < 5 * 2**0.5 * error


@every_example
def test_bins_count_every_pair_once(process_type: type[GaussianProcess], noise: str) -> None:
    denoiser = make(process_under(process_type, noise))
    losses = measured(denoiser, 6, 3)
    rows = losses.by_bin()
    assert sum(count for count, _ in rows.values()) == NUM_CLIPS * 3
    names = list(rows)
    assert names == [name for name in bin_names() if name in names]  # in order, each once


@every_example
def test_losses_equal_those_computed_pair_by_pair(
    process_type: type[GaussianProcess], noise: str
) -> None:
    """In float32, so to 1e-5."""
    process = process_under(process_type, noise)
    denoiser = make(process, "velocity")
    loss: list[float] = []
    log_snr: list[float] = []
    for i, x_0 in enumerate(to_float(clips())):
        for draw in range(2):
            t, e = fixed_pairs(TIMES, process, torch.tensor([i]), draw, 2, SHAPE)
            loss.append(float(denoiser.loss(x_0[None], denoiser.process.level(t), e)))
            log_snr.append(float(process.log_snr(t)))
    losses = measured(denoiser, 7, 2)
    assert losses.mean() == pytest.approx(sum(loss) / len(loss), rel=1e-5)
    limits = [float("-inf"), *LOG_SNR_EDGES, float("inf")]
    rows = losses.by_bin()
    for name, low, high in zip(bin_names(), limits, limits[1:], strict=False):
        members = [i for i, value in enumerate(log_snr) if low <= value < high]
        assert (name in rows) == bool(members)
        if members:
            mean = sum(loss[i] for i in members) / len(members)
            assert rows[name][0] == len(members)
            assert rows[name][1] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_losses_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    denoiser = make(process_under(MedianProcess, "hybrid"))
    expected = measured(denoiser, 4, 4).sums
    actual = measured(denoiser, batch_size, 4).sums
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)  # losses are float32


def test_sums_add_up_over_parts_of_the_data() -> None:
    """What a run on several devices relies on."""
    denoiser = make(process_under(StandardProcess, "cosine"))
    parts = [LossByLogSNR(SIMPLE, TIMES) for _ in range(2)]
    for i, index in enumerate(torch.arange(NUM_CLIPS).split(5)):
        parts[i % 2].update(denoiser, to_float(clips())[index], index, num_draws=2)
    whole = measured(denoiser, 5, 2)
    torch.testing.assert_close(parts[0].sums + parts[1].sums, whole.sums, rtol=1e-14, atol=0)
