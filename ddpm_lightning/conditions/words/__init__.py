"""Word vectors that lie in this folder: GloVe's, of its 40,000 most frequent words; see README.md.

Defines split (a text -> its words), vector (of a word) and frequency_weight. Nothing
is read before the first word is asked for; it then takes 20 ms and 7 MB.
"""

import re
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np

NUM_WORDS, WIDTH = 40_000, 50
WORDS, VECTORS = (Path(__file__).with_name(name) for name in ("words.txt", "vectors.npy"))

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SMOOTHING = 1e-3  # Arora et al. 2017


def split(text: str) -> list[str]:
    """Return the words of a text in lower case: letters, digits, apostrophes between them.

    As in GloVe, dog's is two words, dog and 's, and so is don't: do and n't.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    words = []
    for word in _WORD.findall(plain):
        if "'" not in word or word in _ranks():
            words.append(word)
        elif word.endswith("n't"):
            words += [word[:-3], "n't"]
        else:
            head, _, tail = word.partition("'")
            words += [head, f"'{tail}"]
    return words


def vector(word: str) -> np.ndarray | None:
    """Return the vector (WIDTH,) float32 of a word in lower case, of norm 1; None without one."""
    rank = _ranks().get(word)
    if rank is None:
        return None
    row = _vectors()[rank].astype(np.float32)
    unit: np.ndarray = row / np.linalg.norm(row)
    return unit


def frequency_weight(word: str) -> float:
    """Return how much a word counts in a text's mean: a / (a + p), with a = 0.001 and Zipf's law
    for its share p of all words; 0.01 for the, 0.9 for the word of rank 1,000, 1 for a word that is
    not known (Arora et al. 2017). Means of captions then differ twice as much by what they show.
    """
    rank = _ranks().get(word)
    if rank is None:
        return 1.0
    share = 1 / ((rank + 1) * np.log(NUM_WORDS))
    return float(_SMOOTHING / (_SMOOTHING + share))


@cache
def _ranks() -> dict[str, int]:
    words = WORDS.read_text(encoding="utf-8").split("\n")
    return {word: rank for rank, word in enumerate(words)}


@cache
def _vectors() -> np.ndarray:
    vectors: np.ndarray = np.load(VECTORS, mmap_mode="r")  # (NUM_WORDS, WIDTH) int8
    return vectors
