"""A level for every frame: which frames are given, at which levels the others are, what counts."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.times.base import Levels
from ddpm_lightning.times.frames import CONTEXT_LOG_SNR, FrameTimes
from ddpm_lightning.times.uniform_t import UniformTime
from ddpm_lightning.training.randomness import StepDraws
from tests.problems import FLOOR, build, every_example, process_under

NUM, FRAMES = 4000, 5


def levels(sampling: FrameTimes, process: GaussianProcess, num_frames: int = FRAMES) -> Levels:
    """Return those of NUM clips; seed 0."""
    draws = StepDraws(0, 0, range(NUM))
    return sampling.levels(process, draws, torch.arange(NUM), NUM, FLOOR, num_frames)


def only(**share: float) -> FrameTimes:
    shares = {"alike": 0.0, "context": 0.0, "independent": 0.0} | share
    return build("times", "frames", **shares)


def given(drawn: Levels) -> Tensor:
    assert drawn.counted is not None
    return ~drawn.counted


@every_example
def test_frames_alike_are_drawn_as_clips_are(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise)
    drawn = levels(only(alike=1.0), process)
    uniform = StepDraws(0, 0, range(NUM)).uniform()
    t = UniformTime().draw(process, uniform, torch.arange(NUM), NUM, FLOOR)
    assert torch.equal(drawn.t, t[:, None].expand(-1, FRAMES))
    assert not given(drawn).any()
    for part, expected in zip(drawn.level, process.level(t), strict=True):
        assert torch.equal(part, expected[:, None].expand(-1, FRAMES))


@every_example
def test_a_context_is_nearly_clean_and_all_other_frames_are_at_one_level(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise)
    drawn = levels(only(context=1.0), process)
    context, log_snr = given(drawn), drawn.level.log_snr
    low, high = CONTEXT_LOG_SNR
    of_context = log_snr[context]
    assert (of_context >= low).all()
    assert (of_context <= high).all()
    assert float(of_context.mean()) == pytest.approx((low + high) / 2, abs=0.25)  # 5 of 0.04 clips
    t = drawn.t.where(~context, drawn.t.max(1, keepdim=True).values)
    assert (t == t[:, :1]).all()
    expected = process.level(t).log_snr
    assert torch.equal(log_snr[~context], expected[~context])


def test_a_context_has_any_number_of_frames_in_a_block_or_anywhere() -> None:
    """1 to 4 of 5, 1,000 clips each with a standard error of 27; every frame equally often."""
    drawn = levels(only(context=1.0), process_under(MedianProcess, "hybrid"))
    context = given(drawn)
    counts = torch.bincount(context.sum(1), minlength=FRAMES + 1)
    assert counts[0] == counts[FRAMES] == 0
    assert (counts[1:FRAMES] - 1000).abs().max() < 5 * 28
    assert (context.double().mean(0) - 0.5).abs().max() < 5 * 0.5 / NUM**0.5
    borders = (context != context.roll(1, 1)).sum(1)  # 2: one block on the circle of frames
    two = context.sum(1) == 2
    blocks = float((borders[two] == 2).double().mean())
    assert blocks == pytest.approx(0.5 + 0.5 * 5 / 10, abs=5 * (0.19 / 1000) ** 0.5)


def test_independent_frames_know_nothing_of_each_other() -> None:
    process = process_under(MedianProcess, "linear")
    drawn = levels(only(independent=1.0), process)
    assert not given(drawn).any()
    rank = drawn.t.double().argsort(0).argsort(0) / NUM - 0.5  # of each frame, uniform
    correlation = 12 * rank.T @ rank / NUM
    assert (correlation - torch.eye(FRAMES)).abs().max() < 5 / NUM**0.5
    everywhere = UniformTime().times(process, torch.arange(NUM).double() / NUM, FLOOR)
    difference = drawn.t.sort(0).values - everywhere[:, None]
    # Kolmogorov-Smirnov: but for once in 1,000 within 1.95 / sqrt(n), times the number of steps.
    assert difference.abs().max() < 2.2 / NUM**0.5 * float(everywhere.max())


def test_shares_are_those_that_are_asked_for() -> None:
    drawn = levels(build("times", "frames"), process_under(MedianProcess, "linear"))
    context = given(drawn).any(1)
    alike = (drawn.t == drawn.t[:, :1]).all(1)
    shares = {"context": context, "alike": alike, "independent": ~context & ~alike}
    for name, expected in {"context": 0.35, "alike": 0.5, "independent": 0.15}.items():
        share = float(shares[name].double().mean())
        assert share == pytest.approx(expected, abs=5 * (expected * (1 - expected) / NUM) ** 0.5)


def test_a_clip_of_one_frame_has_no_context() -> None:
    drawn = levels(only(context=1.0), process_under(MedianProcess, "linear"), num_frames=1)
    assert not given(drawn).any()


def test_draws_depend_on_the_samples_numbers_alone() -> None:
    process, sampling = process_under(MedianProcess, "linear"), build("times", "frames")
    place = torch.arange(64)
    whole = sampling.levels(process, StepDraws(0, 3, place.tolist()), place, 64, FLOOR, FRAMES)
    for part in (place[::2], place[1::2]):
        draws = StepDraws(0, 3, part.tolist())
        of_part = sampling.levels(process, draws, part, 64, FLOOR, FRAMES)
        assert torch.equal(of_part.t, whole.t[part])
        assert torch.equal(of_part.level.log_snr, whole.level.log_snr[part])
        assert torch.equal(given(of_part), given(whole)[part])


def test_a_context_does_not_count() -> None:
    """Whatever its loss is, infinite included."""
    counted = torch.tensor([[True, False, True], [False, True, False]])
    t = torch.zeros(2, 3)
    drawn = Levels(t, process_under(MedianProcess, "linear").level(t), counted)
    losses = torch.tensor([[1.0, torch.inf, 2.0], [torch.nan, 4.0, 7.0]], requires_grad=True)
    of_clips = drawn.per_clip(losses)
    assert of_clips.tolist() == [1.5, 4.0]
    of_clips.sum().backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [[0.5, 0, 0.5], [0, 1, 0]]
    assert torch.equal(drawn.mark(losses).isnan(), ~counted)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0, 0, 0)], ids=str)
def test_shares_that_do_not_add_up_are_refused(shares: tuple[float, float, float]) -> None:
    alike, context, independent = shares
    with pytest.raises(ValueError, match="must be 0 or more and add up to 1, got"):
        build("times", "frames", alike=alike, context=context, independent=independent)
