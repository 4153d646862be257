"""Memorisation of copies, of noisy copies, and of draws of the data's law."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.evaluation.features.pixels import Pixels
from ddpm_lightning.evaluation.memorisation import memorisation
from tests.evaluation.features.shared import noise_clips


def draws(num: int, seed: int, d: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, d, generator=generator, dtype=torch.float64)


def test_copies_are_memorised_and_their_originals_are_the_nearest() -> None:
    train, held_out = draws(200, seed=0), draws(40, seed=1)
    copied = torch.randperm(200, generator=torch.Generator().manual_seed(2))[:50]
    result = memorisation(train[copied], train, held_out)
    assert result.value == 1.0
    assert result.standard_error == 0.0
    assert torch.equal(result.nearest, copied)
    assert torch.equal(result.distances, torch.zeros(50, dtype=torch.float64))


def test_noisy_copies_are_memorised_and_found() -> None:
    train, held_out = draws(200, seed=0), draws(40, seed=1)
    copies = train[:50] + 0.1 * draws(50, seed=2)  # a tenth of the data's deviation
    result = memorisation(copies, train, held_out)
    assert result.value > 0.99
    assert (result.nearest == torch.arange(50)).double().mean() > 0.95


def test_new_draws_are_not_memorised_however_few_are_held_out() -> None:
    """Equal pools of both would call a copier 56 %; here every pool is held against all of it."""
    values, errors = [], []
    for seed in range(60):
        train, held_out, samples = (draws(n, 3 * seed + i) for i, n in enumerate((300, 33, 64)))
        result = memorisation(samples, train, held_out)
        values.append(result.value)
        errors.append(result.standard_error)
    deviation, error = torch.tensor(values).std(), torch.tensor(errors).square().mean().sqrt()
    assert abs(torch.tensor(values).mean() - 0.5) < 3 * deviation / 60**0.5
    assert float(error / deviation) == pytest.approx(1, abs=0.3)  # 60 draws: to 9 %


def test_half_copies_are_three_quarters() -> None:
    """Half the pairs are won by copies, of the others half."""
    train, held_out = draws(300, seed=0), draws(200, seed=1)
    result = memorisation(torch.cat([train[:100], draws(100, seed=2)]), train, held_out)
    assert abs(result.value - 0.75) < 3 * result.standard_error


def test_equal_distances_count_half() -> None:
    train = torch.zeros(1, 1, dtype=torch.float64)
    one = torch.ones(4, 1, dtype=torch.float64)
    assert memorisation(one, train, -one).value == 0.5


def test_copied_motion_with_new_content_is_seen_in_motion_alone() -> None:
    """A clip is a still picture of 64 to 191 and a motion of at most 63 around it."""
    pictures = 64 + noise_clips(120, num_frames=1, size=8, channels=1, seed=0) // 2
    motions = noise_clips(120, num_frames=4, size=8, channels=1, seed=1) // 4
    motions[60:90] = motions[:30]  # of the samples
    features = Pixels().pair(pictures + motions)
    in_content, in_motion = (
        memorisation(samples=z[60:90], train=z[:60], held_out=z[90:]) for z in features
    )
    assert in_motion.value == 1.0
    assert abs(in_content.value - 0.5) < 4 * in_content.standard_error
