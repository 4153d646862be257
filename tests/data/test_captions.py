"""Captions of a folder of GIFs: which lines count, and that the store keeps them."""

import logging
from pathlib import Path

import pytest

from ddpm_lightning.data.build import build
from ddpm_lightning.data.dataset import ClipDataset
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.sources.captions import read_captions
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.windows import Windows
from tests.data.shared import noise_gif

KEYS = ["a.gif", "deep/b.gif", "c.gif"]


def test_lines_of_tabs_have_names_and_sentences(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_bytes(
        b"file\tcaption\r\n"
        b"a.gif\ta dog, jumping\r\n"
        b"\r\n"
        b".\\deep\\b.gif\tIt's \xc3\xa9t\xc3\xa9\n"
        b"a.gif\tanother sentence\n"
        b"a.gif\ta dog, jumping\n"
    )
    assert read_captions(tmp_path, KEYS) == {
        "a.gif": ("a dog, jumping", "another sentence"),
        "deep/b.gif": ("It's été",),
    }


def test_csv_has_columns(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text('Caption,File\n"a dog, jumping",a.gif\n,c.gif\n')
    assert read_captions(tmp_path, KEYS) == {"a.gif": ("a dog, jumping",)}


def test_lines_of_no_use_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [b"a.gif\tone", b"x.gif\ttwo", b"c.gif", b"c.gif\t\xff", b"y.gif\tthree"]
    (tmp_path / "captions.tsv").write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert read_captions(tmp_path, KEYS) == {"a.gif": ("one",)}
    assert caplog.messages == [
        f"{tmp_path / 'captions.tsv'}: 2 no such GIF (lines 2, 5); 1 no caption (line 3); "
        "1 not_utf8 (line 4)"
    ]


@pytest.mark.parametrize("content", ["", "\n", "x.gif\tone\n", "a.gif\n"])
def test_a_file_without_captions_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "captions.tsv").write_text(content)
    with pytest.raises(ValueError, match=r"has no caption of a GIF: .*; give lines of NAME<TAB>"):
        read_captions(tmp_path, KEYS)


def test_two_files_are_refused(tmp_path: Path) -> None:
    for name in ("captions.tsv", "captions.csv"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="keep one of them"):
        read_captions(tmp_path, KEYS)


def test_csv_without_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("name,caption\na.gif,one\n")
    with pytest.raises(ValueError, match="one must be named file"):
        read_captions(tmp_path, KEYS)


def test_a_sample_has_one_of_its_captions(tmp_path: Path) -> None:
    """Each of two as often, 5 standard errors of 200 draws; a GIF without any has none."""
    gifs = tmp_path / "gifs"
    gifs.mkdir()
    for i, name in enumerate(("a.gif", "b.gif")):
        (gifs / name).write_bytes(noise_gif(i))
    recipe = Recipe(4, 4, 10, 1)
    before = GifFolder(gifs).fingerprint()
    (gifs / "captions.tsv").write_text("a.gif\tone\na.gif\ttwo\n")
    assert GifFolder(gifs).fingerprint() != before
    store = build(GifFolder(gifs), recipe, tmp_path / "cache")
    assert [entry.captions for entry in store.entries] == [("one", "two"), ()]
    dataset = ClipDataset(store, [0, 1], Windows(2, random=True))
    drawn = [dataset[i].annotations[0].get("caption") for i in range(2)]
    assert drawn[0] in ("one", "two")
    assert drawn[1] is None
    samples = ClipDataset(store, [0] * 200, Windows(2, random=True))
    first = [samples[i].annotations[0]["caption"] for i in range(200)]
    assert abs(first.count("one") - 100) < 36
    assert first == [samples[i].annotations[0]["caption"] for i in range(200)]
