"""Captions as tensors: which words are known, how far captions lie apart, odd texts."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.word_vectors import whitened
from ddpm_lightning.conditions import words
from ddpm_lightning.conditions.caption import Caption, row_of
from ddpm_lightning.conditions.language_model import LanguageModelCaption

ODD = ["", " \n", "!?", "zxqvw", "😀", "東京 ñandú", "\ud800", "'", "e\u0301 ﬁ", "a" * 10_000, "\0"]


@pytest.fixture
def caption() -> Caption:
    torch.manual_seed(0)
    return Caption()


def test_words_are_those_of_glove() -> None:
    assert words.split("The dog's DON'T, 3 o\u2019clock; rock-n-roll!") == (
        ["the", "dog", "'s", "do", "n't", "3", "o'clock", "rock", "n", "roll"]
    )
    assert words.split("CAFE\u0301 \uff21") == ["café", "a"]
    assert words.split(" ?! ") == []


@pytest.mark.slow  # 11,112 captions
def test_nearly_all_words_of_tgif_are_known(shared: Path) -> None:
    path = shared / "tgif" / "tgif-v1.0-partial.tsv"
    captions = [line.split("\t")[1] for line in path.read_text().splitlines()]
    known = [[words.vector(word) is not None for word in words.split(c)] for c in captions]
    assert len(captions) == 11_112
    assert sum(map(sum, known)) / sum(map(len, known)) == pytest.approx(0.989, abs=5e-4)
    assert sum(map(all, known)) / len(known) == pytest.approx(0.891, abs=5e-4)
    assert max(map(len, known)) == 25


def test_vectors_are_white_under_zipfs_law() -> None:
    """Up to the rounding to int8 of 1 % and to the lengths of rows, which are not kept."""
    table = np.load(words.VECTORS)
    assert (table.shape, table.dtype) == ((words.NUM_WORDS, words.WIDTH), np.int8)
    assert (np.abs(table).max(1) == 127).all()
    vectors = np.random.default_rng(0).normal(3.0, [1.0, 10.0, 0.1], (1000, 3))
    share = 1 / np.arange(1, 1001)
    share /= share.sum()
    white = whitened(vectors)
    np.testing.assert_allclose(share @ white, 0, atol=1e-9)
    np.testing.assert_allclose((white * share[:, None]).T @ white, np.eye(3), atol=1e-9)


def test_vectors_of_like_words_are_alike() -> None:
    def cosine(a: str, b: str) -> float:
        u, v = words.vector(a), words.vector(b)
        assert u is not None
        assert v is not None
        return float(u @ v)

    assert cosine("cat", "cat") == pytest.approx(1, abs=1e-6)
    assert cosine("cat", "dog") > 0.7
    assert abs(cosine("cat", "government")) < 0.3


def test_frequent_words_count_little() -> None:
    """a / (a + p), with p = 1 / (r log 40,000) of the word of rank r and a = 0.001."""
    assert words.frequency_weight("the") == pytest.approx(1 / (1 + 1000 / np.log(40_000)))
    assert words.frequency_weight("dancing") > 0.9
    assert words.frequency_weight("zxqvw") == 1


def test_captions_become_tokens_and_a_mean_of_norm_1(caption: Caption) -> None:
    encoded = caption.encode(["a cat jumps", "zxqvw", None])
    assert encoded["tokens"].shape == (3, 32, words.WIDTH)
    norms = encoded["vectors"].norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([1.0, 1.0, 0.0]))
    lengths = encoded["tokens"].norm(dim=2)
    assert 0.5 < lengths.min() < lengths.max() < 2


@pytest.mark.parametrize("text", ODD)
def test_odd_captions_are_encoded(text: str, caption: Caption) -> None:
    encoded = caption.encode([text])
    assert all(t.isfinite().all() for t in encoded.values())
    if not words.split(text):
        null = caption.null(1)
        assert all(torch.equal(encoded[name], null[name]) for name in null)


def test_a_caption_of_1000_words_is_its_first_32(caption: Caption) -> None:
    names = [f"w{i}" for i in range(1000)]
    long, short = (caption.encode([" ".join(names[:n])]) for n in (1000, 32))
    assert all(torch.equal(long[name], short[name]) for name in long)


def test_a_caption_does_not_depend_on_its_batch(caption: Caption) -> None:
    alone, among = caption.encode(["a dog runs"]), caption.encode(["", "a dog runs", "x " * 50])
    for name, tensor in alone.items():
        torch.testing.assert_close(among[name][1], tensor[0])


def test_unknown_words_differ_by_their_hash(caption: Caption) -> None:
    """Of 256 rows, and the same on every machine."""
    assert (row_of("zxqvw"), row_of("東京"), row_of("\ud800")) == (233, 240, 104)
    a, b = caption.encode(["zxqvw", "qqzzk"])["vectors"]
    assert a @ b < 0.5


def test_words_that_are_alike_are_told_apart(caption: Caption) -> None:
    """Three and four have a cosine of 0.94; the trained rows make that about half of it."""
    a, b = caption.encode(["three", "four"])["vectors"]
    u, v = (words.vector(word) for word in ("three", "four"))
    assert u is not None
    assert v is not None
    assert u @ v == pytest.approx(0.94, abs=0.01)
    assert a @ b < 0.75


def test_the_order_of_words_counts(caption: Caption) -> None:
    """As sets of tokens, whose order a network does not see, and in vectors it does not."""
    encoded = caption.encode(["red cat blue dog", "blue cat red dog"])
    torch.testing.assert_close(*encoded["vectors"])
    a, b = encoded["tokens"]
    assert torch.cdist(a[:4], b[:4]).min(1).values.min() > 0.05


@pytest.mark.parametrize("texts", [["a dog"], ["zxqvw"], [None, None]])
def test_all_parameters_have_a_gradient(texts: list[str | None], caption: Caption) -> None:
    """As training on several devices asks, whatever the captions are."""
    encoded = caption.encode(texts)
    (encoded["tokens"].square().sum() + encoded["vectors"].sum()).backward()
    for name, parameter in caption.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()


def test_what_is_typed_is_a_caption(caption: Caption) -> None:
    assert caption.parse("a dog, jumping") == "a dog, jumping"
    assert caption.parse("") is None


def test_text_encoders_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    with pytest.raises(ValueError, match=r"pip install ddpm_lightning\[text\]; or condition/text"):
        LanguageModelCaption("some/model").encode(["a dog"])


def test_data_without_captions_are_refused(caption: Caption) -> None:
    caption.prepare(["a dog"])
    with pytest.raises(ValueError, match=r"no clip has a caption; put captions.tsv"):
        caption.prepare([])


def test_no_word_is_read_by_constructing() -> None:
    words._ranks.cache_clear()
    Caption().null(2)
    assert words._ranks.cache_info().currsize == 0


def test_the_files_are_packaged() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ddpm_lightning.conditions.words"]
    files = [p for p in words.WORDS.parent.iterdir() if p.suffix not in (".py", "")]
    assert {f.name for f in files} >= {"words.txt", "vectors.npy", "LICENSE.txt", "README.md"}
    assert all(any(f.match(pattern) for pattern in patterns) for f in files)
