"""Augmentation as a condition: zeros for samples, a fact in both halves of guidance."""

import pytest
import torch

from ddpm_lightning.conditions.augmentation import AugmentationAmounts
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.conditions.label import Label
from ddpm_lightning.data.augmentation import Amounts
from ddpm_lightning.data.dataset import Annotation


def test_a_clip_as_it_is_has_zeros() -> None:
    condition = AugmentationAmounts()
    vectors = condition.encode([None, Amounts(flip=1.0), Amounts(speed=-0.5, zoom=0.25)])["vectors"]
    wanted = torch.tensor([[0.0] * 5, [1.0, 0, 0, 0, 0], [0, -0.5, 0, 0, 0.25]])
    assert torch.equal(vectors, wanted)


def test_it_is_a_fact() -> None:
    conditions = Conditions(
        {"label": Label(["a", "b"]), "augmentation": AugmentationAmounts()}, dropout=0.5
    )
    annotations: list[Annotation] = [{"label": "a", "augmentation": Amounts(flip=1.0)}] * 2
    dropped = conditions.drop(annotations, torch.tensor([0.1, 0.9]))
    vectors = conditions.encode(dropped)["vectors"]
    assert torch.equal(vectors, torch.tensor([[0.0, 0, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0]]))


def test_samples_cannot_be_asked_for_it() -> None:
    AugmentationAmounts().parse("")
    with pytest.raises(ValueError, match="samples are drawn without augmentation, got 'flip'"):
        AugmentationAmounts().parse("flip")
