"""The list of TGIF and its official splits, as they are published."""

from pathlib import Path

import pytest

from ddpm_lightning.data.ingest.lists import read_list, read_split

pytestmark = pytest.mark.slow


def test_the_tgif_list_holds_every_url_once_with_all_its_sentences(shared: Path) -> None:
    path = shared / "tgif" / "tgif-v1.0-partial.tsv"
    items, report = read_list(str(path))
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert (len(rows), len(items)) == (11_112, 6_737)
    assert [item.url for item in items] == list(dict.fromkeys(url for url, _ in rows))
    assert [item.position for item in items] == list(range(6_737))
    assert all(item.key == item.url.split("/")[-1] for item in items)
    assert {(item.url, text) for item in items for text in item.captions} == set(map(tuple, rows))
    assert report == (str(path), 11_112, 6_737, {}, (), 0)


def test_the_official_splits_part_the_tgif_list(shared: Path) -> None:
    folder = shared / "tgif"
    splits = [str(folder / name) for name in ("val.txt", "test.txt")]
    (val, val_report), (test, test_report) = map(read_split, splits)
    assert (val_report.num_urls, test_report.num_urls) == (10_708, 11_360)
    assert not val & test
    path = str(folder / "tgif-v1.0-partial.tsv")
    in_val, report = read_list(path, splits[:1])
    in_test, _ = read_list(path, splits[1:])
    assert (len(in_val), len(in_test), report.num_outside) == (54, 6_683, 6_683)
    assert all(item.key in val for item in in_val)
    assert all(item.key in test for item in in_test)
