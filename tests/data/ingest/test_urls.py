"""A list of URLs and the parts of its store: what is there, what is missing, what does not fit."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.ingest.driver import run
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.urls import UrlList
from ddpm_lightning.data.shards import MANIFEST
from ddpm_lightning.data.store import ClipStore
from tests.data.ingest.ingester import LIMITS, RECIPE
from tests.data.ingest.server import GifServer
from tests.data.ingest.test_driver import gif
from tests.data.stores import bin_of, index_of

NUM_GIFS = 12


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GifServer]:
    with GifServer({f"{i}.gif": gif(i) for i in range(NUM_GIFS)}) as server:
        (tmp_path / "list.txt").write_text("".join(f"{server.url(n)}\n" for n in server.gifs))
        yield server


def urls_of(folder: Path, address: str = "list.txt", recipe: Recipe = RECIPE) -> UrlList:
    return UrlList(str(folder / address), [], recipe, folder / "cache")


def finished_store(urls: UrlList) -> ClipStore:
    store = urls.finished_store()
    assert store is not None
    return store


def ingest(urls: UrlList, part: int = 0, num_parts: int = 1) -> None:
    job = urls.job(part, num_parts, LIMITS, num_workers=1)
    assert run(job, "none", wait=False, on_news=lambda news: None).complete


def test_a_list_is_the_same_however_its_file_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {
        UrlList(address, [], RECIPE, Path("cache")).directory
        for address in ("list.txt", "./list.txt", str(tmp_path / "x" / ".." / "list.txt"))
    }
    assert len(folders) == 1
    others = [
        UrlList("other/list.txt", [], RECIPE, Path("cache")),
        UrlList("list.txt", [], replace(RECIPE, height=16), Path("cache")),
        UrlList("https://a.b/list.txt", [], RECIPE, Path("cache")),
    ]
    assert len(folders | {urls.directory for urls in others}) == 4


@pytest.mark.slow
def test_a_missing_part_is_noticed(
    tmp_path: Path, server: GifServer, caplog: pytest.LogCaptureFixture
) -> None:
    urls = urls_of(tmp_path)
    assert urls.finished_store() is None
    for part in (0, 2):
        ingest(urls, part, 3)
    assert urls.num_parts == 3
    assert urls.finished_store() is None
    shares = [len(urls.job(part, 3, LIMITS, None).items) for part in range(3)]
    assert sum(shares) == NUM_GIFS
    assert len(urls.store()) == shares[0] + shares[2]
    assert "2 of 3 parts" in caplog.text
    ingest(urls, 1, 3)
    assert len(finished_store(urls)) == NUM_GIFS


@pytest.mark.slow
def test_a_list_is_dealt_in_one_way(tmp_path: Path, server: GifServer) -> None:
    urls = urls_of(tmp_path)
    ingest(urls, 0, 2)
    with pytest.raises(ValueError, match=r"num_parts must be 2.* got 3"):
        urls.job(0, 3, FetchLimits(), None)
    (urls.directory / "part-0000-of-0001").mkdir()
    for refused in (urls.finished_store, lambda: urls.job(0, 2, FetchLimits(), None)):
        with pytest.raises(ValueError, match="parts of 1 and of 2; delete"):
            refused()


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        index_of,
        pytest.param(bin_of, marks=pytest.mark.long),
        pytest.param(lambda folder, number: folder / MANIFEST, marks=pytest.mark.long),
    ],
)
def test_a_damaged_store_is_not_finished_and_another_ingest_mends_it(
    file: Callable[[Path, int], Path], tmp_path: Path, server: GifServer
) -> None:
    urls = urls_of(tmp_path)
    ingest(urls)
    path = file(urls.parts()[0], 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert urls.finished_store() is None
    ingest(urls)
    assert len(finished_store(urls)) == NUM_GIFS


def write_list(
    folder: Path, server: GifServer, names: Iterable[str], name: str = "list.txt"
) -> None:
    (folder / name).write_text("".join(f"{server.url(n)}\n" for n in names))


@pytest.mark.slow
def test_however_it_is_spelt_an_ingest_goes_on_with_it(
    tmp_path: Path, server: GifServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("list.txt", "./list.txt", str(tmp_path / "list.txt")):
        ingest(UrlList(address, [], RECIPE, Path("cache")))
    assert len(server.requests) == NUM_GIFS


@pytest.mark.slow
def test_a_list_that_grew_is_not_finished(tmp_path: Path, server: GifServer) -> None:
    names = list(server.gifs)
    write_list(tmp_path, server, names[:5])
    ingest(urls_of(tmp_path))
    assert len(finished_store(urls_of(tmp_path))) == 5
    write_list(tmp_path, server, names)
    assert urls_of(tmp_path).finished_store() is None
    ingest(urls_of(tmp_path))
    assert len(finished_store(urls_of(tmp_path))) == NUM_GIFS
    (tmp_path / "list.txt").unlink()
    assert urls_of(tmp_path).finished_store() is None  # nobody knows
    assert len(urls_of(tmp_path).store()) == NUM_GIFS


@pytest.mark.slow
def test_an_edited_list_keeps_its_parts(tmp_path: Path, server: GifServer) -> None:
    names = list(server.gifs)
    write_list(tmp_path, server, names[1:])
    for part in range(2):
        ingest(urls_of(tmp_path), part, 2)
    write_list(tmp_path, server, names)  # a line put in front
    for part in range(2):
        ingest(urls_of(tmp_path), part, 2)
    assert len(server.requests) == NUM_GIFS
    assert len(finished_store(urls_of(tmp_path))) == NUM_GIFS


@pytest.mark.slow
def test_splits_share_what_is_stored(tmp_path: Path, server: GifServer) -> None:
    """Of the whole list, or of another split first: no URL is fetched twice."""
    names = list(server.gifs)
    write_list(tmp_path, server, names[:4], "train.txt")
    write_list(tmp_path, server, names[4:6], "val.txt")
    train, val, whole = (
        UrlList(str(tmp_path / "list.txt"), splits, RECIPE, tmp_path / "cache")
        for splits in ([str(tmp_path / "train.txt")], [str(tmp_path / "val.txt")], [])
    )
    ingest(train)
    assert [len(server.requests), len(finished_store(train))] == [4, 4]
    assert val.finished_store() is None
    assert whole.finished_store() is None
    ingest(val)
    assert [len(server.requests), len(finished_store(val))] == [6, 2]
    ingest(whole)
    assert [len(server.requests), len(finished_store(whole))] == [NUM_GIFS, NUM_GIFS]
    assert {entry.key for entry in finished_store(train).entries} == set(names[:4])
