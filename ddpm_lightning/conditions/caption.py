"""Caption: what a clip shows, in words, by word vectors that lie in the package.

A word is its vector, where it has one, plus one of 256 trained rows, chosen by a hash of the word.
The rows stand for words that have no vector, and tell apart those whose vectors are alike: three
and four have a cosine of 0.94. A convolution along the caption adds what stands near each word, so
that `a red cat and a blue dog` is not `a blue cat and a red dog`, which are alike as sets of words.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from ddpm_lightning.conditions import words
from ddpm_lightning.conditions.base import Condition

_NUM_ROWS = 256  # for the hashes of words; one more is that of no word
_REACH = 2  # words to either side


class Caption(Condition):
    """Tokens, one for each word, and their mean, in which frequent words count little.

    Places after the last word hold a trained token. The network attends to all of them, without a
    mask: it learns how much to. A caption without any word is one that is not known.

    Args:
        max_words: of a caption; further ones are left out. The captions of TGIF have up to 25.
    """

    is_wish = True
    vector_width = words.WIDTH
    token_width = words.WIDTH

    def __init__(self, max_words: PositiveInt = 32) -> None:
        super().__init__()
        self.max_words = max_words
        self.rows = nn.Embedding(_NUM_ROWS + 1, words.WIDTH)
        nn.init.normal_(self.rows.weight, std=words.WIDTH**-0.5)  # norm 1, as word vectors
        self.near = nn.Conv1d(words.WIDTH, words.WIDTH, 2 * _REACH + 1, padding=_REACH)

    def __str__(self) -> str:
        return f"captions by word vectors, the first {self.max_words} words"

    def prepare(self, values: Sequence[str]) -> None:
        refuse_none(values)

    def encode(self, values: Sequence[str | None]) -> dict[str, Tensor]:
        shape = (len(values), self.max_words)
        vectors = np.zeros((*shape, words.WIDTH), dtype=np.float32)
        numbers = np.full(shape, _NUM_ROWS)
        scales, weights = np.ones(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        for i, value in enumerate(values):
            for j, word in enumerate(words.split(value or "")[: self.max_words]):
                vector, numbers[i, j], weights[i, j] = _look_up(word)
                if vector is not None:
                    vectors[i, j] = vector
                    scales[i, j] = 2**-0.5  # of two vectors of norm 1
        device = self.rows.weight.device
        known, number, scale, weight = (
            torch.from_numpy(a).to(device) for a in (vectors, numbers, scales, weights)
        )
        x = scale[..., None] * (known + self.rows(number))  # (B, L, width)
        mean = (weight[..., None] * x).sum(1)
        tokens = x + self.near(x.mT).mT
        return {"vectors": F.normalize(mean, eps=1e-6), "tokens": tokens}


def refuse_none(captions: Sequence[str]) -> None:
    """Raise ValueError if there is no caption."""
    if not captions:
        raise ValueError(
            "no clip has a caption; put captions.tsv, lines of NAME<TAB>SENTENCE, beside the GIFs, "
            "or train with another condition"
        )


@lru_cache(maxsize=2**16)
def _look_up(word: str) -> tuple[np.ndarray | None, int, float]:
    return words.vector(word), row_of(word), words.frequency_weight(word)


def row_of(word: str) -> int:
    """Return the number of a word's trained row, the same on every machine."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % _NUM_ROWS
