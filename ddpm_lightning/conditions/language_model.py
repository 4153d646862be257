"""Captions by a pretrained text encoder, such as T5 or CLIP; `caption` has word vectors instead.

The encoder is no part of the denoiser: what it makes of a caption is computed once and kept.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.conditions.caption import refuse_none
from ddpm_lightning.conditions.encodings import Encodings


class LanguageModelCaption(Condition):
    """The encoder's tokens, scaled to a norm of 1, and their mean. Places after them hold a trained
    token; a caption that is not known, or empty, has no other.

    Args:
        model, revision, width, max_tokens: see Encodings.
    """

    is_wish = True

    def __init__(
        self,
        model: str = "google-t5/t5-small",
        revision: str = "main",
        width: PositiveInt = 512,
        max_tokens: PositiveInt = 40,
    ) -> None:
        super().__init__()
        self.model = model
        self.encodings = Encodings(model, revision, width, max_tokens)
        self.vector_width = self.token_width = width
        self.no_token = nn.Parameter(torch.randn(self.token_width) * self.token_width**-0.5)

    def __str__(self) -> str:
        return f"captions by {self.model}, the first {self.encodings.max_tokens} tokens"

    def prepare(self, values: Sequence[str]) -> None:
        refuse_none(values)
        self.encodings.add(values, self.no_token.device)

    def encode(self, values: Sequence[str | None]) -> dict[str, Tensor]:
        device = self.no_token.device
        encoded = self.encodings.get([value for value in values if value], device)
        shape = (len(values), self.encodings.max_tokens)
        rows, is_token = np.zeros((*shape, self.token_width), np.float32), np.zeros(shape, bool)
        for i, value in enumerate(values):
            if value:
                count = len(encoded[value])
                rows[i, :count], is_token[i, :count] = encoded[value], True
        tokens = F.normalize(torch.from_numpy(rows).to(device), dim=2)
        present = torch.from_numpy(is_token).to(device)[..., None]
        return {
            "vectors": F.normalize(tokens.sum(1), eps=1e-6),
            "tokens": torch.where(present, tokens, self.no_token),
        }
