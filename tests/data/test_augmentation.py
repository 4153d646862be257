"""Changes of samples: what each does to pixels, and that its amount is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_lightning.data.augmentation import NO_AUGMENTATION, Amounts, Augmentation

F, H, W = 3, 8, 10
EVERYTHING = Augmentation(True, 0.2, 0.2, 0.3)


def clip(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (F, H, W, 3), dtype=torch.uint8, generator=generator)


def ramp() -> Tensor:
    """Of 20 a column and 2 a row, alike in every frame and channel."""
    image = 20 * torch.arange(W) + 2 * torch.arange(H)[:, None] + 20
    return image.byte().expand(F, H, W)[..., None].expand(F, H, W, 3)


def test_nothing_is_done_without_being_asked_for() -> None:
    amounts = NO_AUGMENTATION.amounts([0.1] * 5)
    assert amounts == Amounts()
    x = clip()
    assert NO_AUGMENTATION.apply(x, amounts) is x
    assert NO_AUGMENTATION.speed(amounts) == 1


def test_amounts_are_spread_evenly_over_their_range() -> None:
    """Half are flipped, others have mean 0 and variance 1/3: 5 standard errors of 2,000."""
    draws = np.random.default_rng(0).uniform(size=(2000, 5))
    amounts = torch.tensor([EVERYTHING.amounts(row) for row in draws])
    assert abs(amounts[:, 0].mean() - 0.5) < 5 * 0.5 / 2000**0.5
    assert set(amounts[:, 0].tolist()) == {0, 1}
    assert (amounts[:, 1:].mean(0).abs() < 5 * (1 / 3 / 2000) ** 0.5).all()
    assert (amounts[:, 1:].square().mean(0) - 1 / 3).abs().max() < 5 * 0.3 / 2000**0.5


def test_a_clip_is_shifted_by_whole_pixels_exactly() -> None:
    """By a quarter of 8 rows down, and by a fifth of 10 columns to the left."""
    x = clip()
    down = Augmentation(shift=0.25).apply(x, Amounts(down=1.0))
    assert torch.equal(down[:, 2:], x[:, :-2])
    assert torch.equal(down[:, :2], x[:, :2].flip(1))  # mirrored at the edge
    left = Augmentation(shift=0.2).apply(x, Amounts(right=-1.0))
    assert torch.equal(left[:, :, :-2], x[:, :, 2:])


@pytest.mark.parametrize("amount", [-1.0, -0.37, 0.2, 1.0])
def test_a_ramp_shows_shift_and_zoom(amount: float) -> None:
    """Linear interpolation is exact on it, up to rounding: what a pixel shows is where it was."""
    augmentation = Augmentation(shift=0.1, zoom=0.25)
    amounts = Amounts(down=amount, right=-amount, zoom=amount)
    moved = augmentation.apply(ramp(), amounts).double()[0, ..., 0]
    scale = 1.25**amount
    rows = (torch.arange(H) - (H - 1) / 2 - 0.1 * amount * H) / scale + (H - 1) / 2
    columns = (torch.arange(W) - (W - 1) / 2 + 0.1 * amount * W) / scale + (W - 1) / 2
    wanted = 20 * columns + 2 * rows[:, None] + 20
    inner = (slice(2, -2), slice(2, -2))
    assert (moved - wanted)[inner].abs().max() <= 0.5 + 1e-3


def test_all_frames_are_changed_alike() -> None:
    amounts = EVERYTHING.amounts([0.2, 0.3, 0.9, 0.1, 0.8])
    x = clip()
    whole = EVERYTHING.apply(x, amounts)
    alone = torch.cat([EVERYTHING.apply(frame[None], amounts) for frame in x])
    assert torch.equal(whole, alone)
    assert not torch.equal(whole, x)


def test_speeds_are_powers_of_the_jitter() -> None:
    augmentation = Augmentation(fps_jitter=0.5)
    speeds = [augmentation.speed(Amounts(speed=amount)) for amount in (-1, 0, 1)]
    assert speeds == pytest.approx([1 / 1.5, 1, 1.5])
