"""Whole ingests, from a real server to a store: what arrives, what is counted, what survives."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.ingest.driver import REPORT, run
from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.data.shards import MANIFEST
from ddpm_lightning.data.store import ClipStore
from tests.commands import wait_for
from tests.data.ingest.ingester import LIMITS, ingest, job, names
from tests.data.ingest.server import GifServer

pytestmark = pytest.mark.slow  # as a whole, not one by one

ROOT = Path(__file__).parents[3]


def gif(seed: int, num_frames: int = 4) -> bytes:
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 12, 12, 3), np.uint8)
    return encode(frames, [100] * num_frames)


@pytest.fixture
def server() -> Iterator[GifServer]:
    with GifServer({f"{i}.gif": gif(i) for i in range(0, 400, 5)}) as server:
        yield server


def manifest(directory: Path) -> bytes:
    return (directory / MANIFEST).read_bytes()


def test_dead_links_are_counted_and_the_rest_is_stored(tmp_path: Path, server: GifServer) -> None:
    urls = [server.url(name) for name in names(100)]
    news = ingest(tmp_path, urls)
    assert news.complete
    assert dict(news.causes) == {"clips": 20, "http_404": 80}
    store = ClipStore(tmp_path)
    assert [entry.key for entry in store.entries] == [f"{i:05d}.gif" for i in range(0, 100, 5)]
    assert [entry.captions for entry in store.entries[:2]] == [("number 0",), ("number 5",)]
    assert store.skipped == {"http_404": 80}
    assert store.clip(3).shape == (4, 8, 8, 3)
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["causes"] == {"http_404": 80, "clips": 20}
    assert report["complete"]


def test_a_finished_ingest_fetches_nothing_again(tmp_path: Path, server: GifServer) -> None:
    urls = [server.url(name) for name in names(40)]
    ingest(tmp_path, urls)
    before, asked = manifest(tmp_path), len(server.requests)
    news = ingest(tmp_path, urls, retry="transient")
    assert (news.num_fetched, news.complete) == (0, True)
    assert manifest(tmp_path) == before
    assert len(server.requests) == asked


def test_every_failure_has_its_own_cause(tmp_path: Path, server: GifServer) -> None:
    server.gifs |= {
        "page": b"<html>gone</html>",
        "still.gif": gif(1, num_frames=1),
        "cut.gif": gif(2)[:-40],
        "copy.gif": gif(0),
    }
    paths = ["0.gif", "page", "still.gif", "cut.gif", "copy.gif", "status/410", "status/403"]
    news = ingest(tmp_path, [server.url(path) for path in paths])
    skipped = ClipStore(tmp_path).skipped_keys
    assert skipped["00001.gif"] == "not_a_gif"
    assert skipped["00002.gif"] == "still"
    assert skipped["00004.gif"] == "duplicate"
    assert skipped["00005.gif"] == "http_410"
    assert skipped["00006.gif"] == "http_403"
    assert len(skipped) == 6
    assert news.causes["clips"] == 1
    assert news.complete


def test_only_what_may_have_recovered_is_tried_again(tmp_path: Path, server: GifServer) -> None:
    """The block is written again: with what came back, and with what it held."""
    paths = ["0.gif", "flaky/500/4/5.gif", "status/404", "10.gif"]
    urls = [server.url(path) for path in paths]
    first = ingest(tmp_path, urls)
    assert first.causes["clips"] == 2
    asked = server.counts()
    assert ingest(tmp_path, urls).num_fetched == 0
    second = ingest(tmp_path, urls, retry="transient")
    assert (second.num_fetched, second.causes["clips"]) == (1, 3)
    store = ClipStore(tmp_path)
    assert [entry.key for entry in store.entries] == ["00000.gif", "00001.gif", "00003.gif"]
    assert [len(store.clip(i)) for i in range(3)] == [4, 4, 4]
    again = server.counts() - asked
    assert set(again) == {"/flaky/500/4/5.gif"}


def test_a_longer_list_adds_what_is_new(tmp_path: Path, server: GifServer) -> None:
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls[:30])
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (30, True)
    assert len(ClipStore(tmp_path)) == 12


def test_parts_share_a_list_and_read_as_one(tmp_path: Path, server: GifServer) -> None:
    urls = [server.url(name) for name in names(60)]
    parts = [tmp_path / str(part) for part in range(3)]
    whole = job(tmp_path, urls)
    for part, folder in enumerate(parts):
        share = replace(whole, items=whole.items[part::3], directory=folder, num_parts=3)
        assert run(share, "none", wait=False, on_news=lambda news: None).complete
    assert len(server.requests) == 60
    keys = sorted(entry.key for entry in ClipStore(parts).entries)
    assert keys == [f"{i:05d}.gif" for i in range(0, 60, 5)]


def test_new_captions_reach_the_store_and_nothing_is_fetched(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls)
    first = job(tmp_path, urls)
    items = [
        item._replace(captions=("another",)) if i == 25 else item
        for i, item in enumerate(first.items)
    ]
    news = run(replace(first, items=items), "none", wait=False, on_news=lambda news: None)
    assert (news.num_fetched, news.complete) == (0, True)
    captions = {entry.key: entry.captions for entry in ClipStore(tmp_path).entries}
    assert captions.pop("00025.gif") == ("another",)
    assert all(captions[key] == (f"number {int(key[:5])}",) for key in captions)


def test_clips_that_the_list_no_longer_holds_stay_and_are_counted(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url(name) for name in names(60)]
    assert ingest(tmp_path, urls).num_unlisted == 0
    news = ingest(tmp_path, urls[:50])
    assert (news.num_unlisted, news.num_fetched, news.complete) == (10, 0, True)
    assert len(ClipStore(tmp_path)) == 12


@pytest.mark.long
def test_a_host_that_closes_holds_up_nobody_else(tmp_path: Path, server: GifServer) -> None:
    """Two URLs of a host that asks for a pause of 8 s come first, then twenty of another."""
    limits = replace(LIMITS, concurrency=2, per_host=1, retry_after_cap_s=8.0, max_tries=1)
    closed = [server.url(f"status/503?retry_after=8&{i}", "localhost") for i in range(2)]
    others = [server.url(f"{i}.gif") for i in range(0, 100, 5)]
    news = ingest(tmp_path, closed + others, limits=limits)
    assert dict(news.causes) == {"clips": 20, "http_503": 2}
    times = server.times()
    assert max(times["127.0.0.1"]) < sorted(times["localhost"])[1]


@pytest.mark.long
def test_a_host_with_thousands_of_urls_does_not_keep_others_waiting(
    tmp_path: Path, server: GifServer
) -> None:
    """4,200 URLs of a host that wants a pause, and then some of another."""
    closed = [server.url(f"status/503?retry_after=600&{i}", "localhost") for i in range(4200)]
    others = [server.url(f"{i}.gif") for i in range(0, 100, 5)]
    (tmp_path / "urls").write_text("\n".join(closed + others))
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from tests.data.ingest.ingester import *\n"
        "urls = Path(sys.argv[1], 'urls').read_text().split()\n"
        "ingest(Path(sys.argv[1]), urls, limits=replace(LIMITS, retry_after_cap_s=600.0))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        wait_for(lambda: len(server.times()["127.0.0.1"]) == 20)
    finally:
        process.kill()
        process.wait()
    assert server.counts()["/status/503"] <= 2 * LIMITS.per_host


def test_what_is_no_longer_listed_is_not_fetched_until_it_is_again(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url(f"{i}.gif") for i in range(0, 100, 5)]
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.add(job(tmp_path, urls).items)
    news = ingest(tmp_path, urls[:5])
    assert dict(news.causes) == {"clips": 5, "unlisted": 15}
    assert news.complete
    assert len(server.requests) == 5
    assert ingest(tmp_path, urls).causes["clips"] == 20


@pytest.mark.long
def test_many_long_clips_take_little_memory(tmp_path: Path, server: GifServer) -> None:
    """24 files of under 1 KB that last minutes: a gigabyte of frames."""
    for i in range(24):
        frames = np.full((2, 8, 8, 3), 10 * i, np.uint8)
        frames[1] += 5
        server.gifs[f"long{i}.gif"] = encode(frames, [60_000, 60_000])
    code = (
        "import re, sys; from pathlib import Path\n"
        "from tests.data.ingest.ingester import *\n"
        "import tests.data.ingest.ingester as ingester\n"
        "ingester.RECIPE = Recipe(64, 64, 10.0)\n"
        "news = ingest(Path(sys.argv[1]), sys.argv[2:])\n"
        "assert news.causes['clips'] == 24, news\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    urls = [server.url(f"long{i}.gif") for i in range(24)]
    command = [sys.executable, "-c", code, str(tmp_path), *urls]
    peak = int(subprocess.check_output(command, cwd=ROOT, text=True, timeout=600)) / 1024
    assert sum(path.stat().st_size for path in tmp_path.glob("*.bin")) > 300 * 2**20
    assert peak < 250, f"{peak:.0f} MiB"


@pytest.mark.long
def test_thousands_of_dead_links_are_counted(tmp_path: Path, server: GifServer) -> None:
    news = ingest(tmp_path, [server.url(name) for name in names(2000)])
    assert news.complete
    assert news.causes["clips"] == 80
    assert news.causes["http_404"] == 1920
