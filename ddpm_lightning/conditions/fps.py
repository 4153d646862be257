"""Frame rate: how many frames of its own a GIF shows a second, whatever the clip's rate is."""

from collections.abc import Sequence
from contextlib import suppress
from math import inf, log2

import torch
from pydantic import PositiveFloat
from torch import Tensor

from ddpm_lightning.conditions.base import Condition

_OCTAVES = (16.0, 8.0, 4.0, 2.0)  # periods; GIFs have 1 to 50 frames a second, 6 octaves


class FrameRate(Condition):
    """Sines and cosines of the rate's logarithm, of norm 1.

    Args:
        default: for clips whose rate is not known, and for samples if none is asked for.
    """

    is_wish = False
    vector_width = 2 * len(_OCTAVES)
    frequencies: Tensor

    def __init__(self, default: PositiveFloat = 10.0) -> None:
        super().__init__()
        self.default = default
        frequencies = 2 * torch.pi / torch.tensor(_OCTAVES)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def encode(self, values: Sequence[float | None]) -> dict[str, Tensor]:
        octaves = [log2(value or self.default) for value in values]
        angle = torch.tensor(octaves, device=self.frequencies.device)[:, None] * self.frequencies
        return {"vectors": torch.cat([angle.sin(), angle.cos()], 1) * len(_OCTAVES) ** -0.5}

    def __str__(self) -> str:
        return "fps, the frame rate of a GIF"

    def parse(self, text: str) -> float | None:
        if not text:
            return None
        with suppress(ValueError):
            if 0 < (fps := float(text)) < inf:
                return fps
        raise ValueError(f"fps must be a number above 0, got {text!r}; 10 is usual")
