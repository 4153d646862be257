"""Augmentation as a fact: how a training clip was changed, by data.augmentation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.data.augmentation import Amounts


class AugmentationAmounts(Condition):
    """The amounts of flip, speed, shift and zoom; zeros for clips as they are, and for samples."""

    is_wish = False
    vector_width = len(Amounts._fields)
    none: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("none", torch.zeros(self.vector_width), persistent=False)

    def __str__(self) -> str:
        return "augmentation, how a training clip was changed"

    def encode(self, values: Sequence[Amounts | None]) -> dict[str, Tensor]:
        amounts = [value or Amounts() for value in values]
        return {"vectors": torch.tensor(amounts, device=self.none.device)}

    def parse(self, text: str) -> None:
        if text:
            raise ValueError(f"samples are drawn without augmentation, got {text!r}; leave it out")
