"""Error at fixed levels: equal for equal denoisers, whatever the chain, schedule and objective."""

from math import isnan

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.levels import LEVELS, NUM_TRIPLES, LevelErrors, covered, triples_of
from ddpm_lightning.level import Level
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.tensors import expand
from tests.problems import FLOOR, FixedOutput, build, options, process_under

README = [(p, n) for p in (StandardProcess, MedianProcess) for n in ("linear", "cosine", "hybrid")]


class Exact(nn.Module):
    """The network under which the denoiser is exact for values N(0, 1/4)."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        level = Level.at(log_snr)
        m = level.alpha.square() / 4 + level.sigma.square()
        c_skip, c_out = self.objective.scaling(level)
        x_t = expand(m.sqrt(), x) * x
        return expand((level.alpha / 4 / m - c_skip) / c_out, x) * x_t


def exact(process: GaussianProcess, objective: str) -> Denoiser:
    made = build("objective", objective)
    return Denoiser(Exact(made), process, made).double()


def normal_clips(num_clips: int) -> Tensor:
    """(num_clips, 1, 2, 4, 4) of N(0, 1/4), float64; seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((num_clips, 1, 2, 4, 4), generator=generator, dtype=torch.float64) / 2


def measured(denoiser: Denoiser, x_0: Tensor, batch_size: int) -> LevelErrors:
    errors = LevelErrors(len(x_0))
    for index in torch.arange(len(x_0)).split(batch_size):
        errors.update(denoiser, x_0[index], index)
    errors.finish(denoiser)
    return errors


# An objective sees a level alone: on one chain each, and one on each chain.
@pytest.mark.parametrize(
    ("process_type", "noise", "objective"),
    [
        *((kind, noise, "velocity") for kind, noise in README),
        *((MedianProcess, "hybrid", name) for name in options("objective") if name != "velocity"),
    ],
)
def test_one_exact_denoiser_has_one_error_on_every_chain_and_schedule(
    process_type: type[GaussianProcess], noise: str, objective: str
) -> None:
    """The README's six combinations: its loss on them is 40 % apart; here it is round-off."""
    x_0 = normal_clips(20)
    reference = measured(exact(process_under(StandardProcess, "cosine"), "clean"), x_0, 20)
    errors = measured(exact(process_under(process_type, noise), objective), x_0, 20)
    assert errors.mean() == pytest.approx(reference.mean(), rel=1e-6)


def test_it_is_the_error_of_theory_within_its_standard_error() -> None:
    """Values N(0, 1/4): the best x_0 error is 1 / (4 + SNR) at every level."""
    errors = measured(
        exact(process_under(StandardProcess, "cosine"), "velocity"), normal_clips(66), 8
    )
    snr = LEVELS.exp()
    expected = float((snr / (1 + snr) / (4 + snr)).mean())
    assert abs(errors.mean() - expected) < 4 * errors.standard_error() < 0.2 * expected
    for row, value in zip(errors.by_level(), 1 / (4 + snr), strict=True):
        assert row.x_0 == pytest.approx(float(value), rel=0.5)
        assert row.noise == pytest.approx(row.x_0 * torch.tensor(row.log_snr).exp().item())
        assert row.velocity == pytest.approx(row.x_0 + row.noise)
        assert row.weighted <= min(row.x_0, row.noise)


def test_a_clip_that_is_hard_everywhere_widens_the_standard_error() -> None:
    """Errors of a clip at all levels are a_i / w_l: the mean's error is that of the mean of a_i."""
    errors = LevelErrors(num_clips=12)
    numbers = torch.arange(errors.sums.shape[1])  # 22 a clip: every clip at 22 of 33 levels
    hardness = torch.rand(12, generator=torch.Generator().manual_seed(0)).double()
    errors.sums[0] = 1
    errors.sums[1] = hardness[numbers // 22] / LEVELS.sigmoid()[numbers % 33]
    expected = float(hardness.std()) / 12**0.5
    assert errors.standard_error() == pytest.approx(expected, rel=0.1)


def test_an_error_that_is_not_finite_is_no_good_one() -> None:
    errors = LevelErrors(num_clips=264)
    errors.sums[0] = 1
    errors.sums[1, 5] = torch.nan
    assert isnan(errors.mean())


@pytest.mark.parametrize("times", options("times"))
def test_levels_that_are_trained_at_lie_within_the_law_of_times(times: str) -> None:
    process = process_under(StandardProcess, "cosine")
    law = build("times", times)
    fraction = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    drawn = process.log_snr(law.times(process, fraction, FLOOR))
    trained = LEVELS[covered(process, law, FLOOR)]
    assert len(trained) >= 5
    assert drawn.min() <= trained.min()
    assert drawn.max() >= trained.max()
    outside = (drawn < trained.min() - 0.75) | (drawn > trained.max() + 0.75)
    assert outside.double().mean() < 0.02  # the cleanest steps lie 1.4 apart


@pytest.mark.parametrize("num_clips", [1, 10, 33, 44, 264, 265, 1000, 5000])
def test_levels_are_dealt_in_turn_to_at_least_264_triples(num_clips: int) -> None:
    triples = triples_of(torch.arange(num_clips), num_clips)
    numbers = [number for _, number in triples]
    assert numbers == list(range(len(numbers)))
    assert NUM_TRIPLES <= len(numbers) < NUM_TRIPLES + num_clips
    if num_clips >= NUM_TRIPLES:
        assert len(numbers) == NUM_TRIPLES  # no dearer


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_errors_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    denoiser = Denoiser(
        FixedOutput(0.1), process_under(MedianProcess, "hybrid"), build("objective", "velocity")
    )
    x_0 = to_float(torch.randint(256, (20, 2, 4, 4, 1), dtype=torch.uint8))
    expected, actual = (measured(denoiser, x_0, size).sums for size in (4, batch_size))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)  # losses are float32
