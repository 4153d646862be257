"""Whole ingests, from a real server to a store: what arrives, what is counted, what survives."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.ingest.decode import decode_clip
from ddpm_lightning.data.ingest.driver import REPORT, run
from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import MANIFEST, bin_name, index_name, mark_name
from ddpm_lightning.data.store import ClipStore
from tests.data.ingest.ingester import LIMITS, RECIPE, ingest, job, names
from tests.data.ingest.server import GifServer

ROOT = Path(__file__).parents[3]


def gif(seed, num_frames=4):
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 12, 12, 3), np.uint8)
    return encode(frames, [100] * num_frames)


@pytest.fixture
def server():
    with GifServer({f"{i}.gif": gif(i) for i in range(0, 400, 5)}) as server:
        yield server


def manifest(directory):
    return (directory / MANIFEST).read_bytes()


def test_dead_links_are_counted_and_the_rest_is_stored(tmp_path, server):
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


def test_a_finished_ingest_fetches_nothing_again(tmp_path, server):
    urls = [server.url(name) for name in names(40)]
    ingest(tmp_path, urls)
    before, asked = manifest(tmp_path), len(server.requests)
    news = ingest(tmp_path, urls, retry="transient")
    assert (news.num_fetched, news.complete) == (0, True)
    assert manifest(tmp_path) == before
    assert len(server.requests) == asked


def test_every_failure_has_its_own_cause(tmp_path, server):
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


def test_only_what_may_have_recovered_is_tried_again(tmp_path, server):
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


def test_a_longer_list_adds_what_is_new(tmp_path, server):
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls[:30])
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (30, True)
    assert len(ClipStore(tmp_path)) == 12


def test_parts_share_a_list_and_read_as_one(tmp_path, server):
    urls = [server.url(name) for name in names(60)]
    parts = [tmp_path / str(part) for part in range(3)]
    whole = job(tmp_path, urls)
    for part, folder in enumerate(parts):
        share = replace(whole, items=whole.items[part::3], directory=folder, num_parts=3)
        assert run(share, "none", wait=False, tell=lambda news: None).complete
    assert len(server.requests) == 60
    keys = sorted(entry.key for entry in ClipStore(parts).entries)
    assert keys == [f"{i:05d}.gif" for i in range(0, 60, 5)]


def test_of_a_damaged_shard_the_damaged_clip_alone_is_fetched_again(tmp_path, server):
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls)
    before = manifest(tmp_path)
    content = bytearray((tmp_path / bin_name(1)).read_bytes())
    content[100] ^= 1
    (tmp_path / bin_name(1)).write_bytes(content)
    ClipStore(tmp_path).verify()
    assert (tmp_path / mark_name(1)).exists()
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (1, True)
    assert manifest(tmp_path) == before
    assert not ClipStore(tmp_path).verify()


def test_the_sound_clips_of_a_damaged_shard_survive_their_links(tmp_path, server):
    urls = [server.url(name) for name in names(20)]
    ingest(tmp_path, urls)
    content = bytearray((tmp_path / bin_name(0)).read_bytes())
    content[0] ^= 1
    (tmp_path / bin_name(0)).write_bytes(content)
    ClipStore(tmp_path).verify()
    server.gifs.clear()
    news = ingest(tmp_path, urls)
    assert dict(news.causes) == {"clips": 3, "http_404": 17}
    store = ClipStore(tmp_path)
    assert [entry.key for entry in store.entries] == ["00005.gif", "00010.gif", "00015.gif"]
    assert not store.verify()


def test_new_captions_reach_the_store_and_nothing_is_fetched(tmp_path, server):
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls)
    first = job(tmp_path, urls)
    items = [
        item._replace(captions=("another",)) if i == 25 else item
        for i, item in enumerate(first.items)
    ]
    news = run(replace(first, items=items), "none", wait=False, tell=lambda news: None)
    assert (news.num_fetched, news.complete) == (0, True)
    captions = {entry.key: entry.captions for entry in ClipStore(tmp_path).entries}
    assert captions.pop("00025.gif") == ("another",)
    assert all(captions[key] == (f"number {int(key[:5])}",) for key in captions)


def test_clips_that_the_list_no_longer_holds_stay_and_are_counted(tmp_path, server):
    urls = [server.url(name) for name in names(60)]
    assert ingest(tmp_path, urls).num_unlisted == 0
    news = ingest(tmp_path, urls[:50])
    assert (news.num_unlisted, news.num_fetched, news.complete) == (10, 0, True)
    assert len(ClipStore(tmp_path)) == 12


def test_a_host_that_closes_holds_up_nobody_else(tmp_path, server):
    """Four URLs of a host that asks for a second's pause come first, then twenty of another."""
    limits = replace(LIMITS, concurrency=2, per_host=1, retry_after_cap_s=1.0, max_tries=2)
    closed = [server.url(f"status/503?retry_after=1&{i}", "localhost") for i in range(4)]
    others = [server.url(f"{i}.gif") for i in range(0, 100, 5)]
    news = ingest(tmp_path, closed + others, limits=limits)
    assert dict(news.causes) == {"clips": 20, "http_503": 4}
    times = server.times()
    assert max(times["127.0.0.1"]) < sorted(times["localhost"])[2]


def test_a_retried_clip_survives_a_kill_before_its_shard_is_written_again(tmp_path, server):
    """As after a kill: the ledger says decoded, the clip is in the spool, its shard is without."""
    urls = [server.url(path) for path in ("0.gif", "flaky/500/4/5.gif", "10.gif")]
    ingest(tmp_path, urls)
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.retry("transient") == 1
        Spool(tmp_path / "spool").put(urls[1], decode_clip(gif(5), RECIPE))
        ledger.record(urls[1], "decoded", sha256="0" * 64)
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (0, True)
    assert [entry.key for entry in ClipStore(tmp_path).entries] == [
        "00000.gif",
        "00001.gif",
        "00002.gif",
    ]


@pytest.mark.parametrize("name", [bin_name(1), index_name(1)])
def test_a_shard_that_is_not_what_is_listed_is_made_again(name, tmp_path, server):
    """As after a kill between a shard's files and the manifest, or a file cut by the disk."""
    urls = [server.url(path) for path in names(60)]
    ingest(tmp_path, urls)
    before = manifest(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    assert ingest(tmp_path, urls).complete
    assert manifest(tmp_path) == before
    assert len(ClipStore(tmp_path)) == 12


def test_wrong_bytes_are_not_given_a_right_checksum(tmp_path, server):
    """A shard is written again for another clip's sake, while one of its own has rotted."""
    urls = [server.url(path) for path in ("0.gif", "flaky/500/4/5.gif", "10.gif")]
    ingest(tmp_path, urls)
    content = bytearray((tmp_path / bin_name(0)).read_bytes())
    content[7] ^= 1
    (tmp_path / bin_name(0)).write_bytes(content)
    news = ingest(tmp_path, urls, retry="transient")
    assert not news.complete  # the rotten clip is lost, and known to be
    assert ingest(tmp_path, urls).complete
    store = ClipStore(tmp_path)
    assert len(store) == 3
    assert not store.verify()


def test_a_lost_spool_file_is_fetched_again(tmp_path, server):
    """As after a power loss: the ledger knows of a clip that is not there."""
    urls = [server.url(name) for name in names(20)]
    ingest(tmp_path / "whole", urls)
    with Ledger(tmp_path / "cut" / "ledger.db") as ledger:
        ledger.add(job(tmp_path, urls).items)
        ledger.record(urls[0], "decoded", sha256="0" * 64)
        ledger.record(urls[5], "stored", sha256="1" * 64)
    news = ingest(tmp_path / "cut", urls)
    assert news.num_fetched == 20
    assert manifest(tmp_path / "cut") == manifest(tmp_path / "whole")


def test_a_second_ingester_is_refused_by_name(tmp_path, server):
    with (
        Ledger(tmp_path / "ledger.db"),
        pytest.raises(ValueError, match=str(os.getpid())) as error,
    ):
        ingest(tmp_path, [server.url("0.gif")])
    assert "\n" not in str(error.value)


def test_two_ingesters_of_one_list_fetch_every_url_once(tmp_path, server):
    """Two processes: the second one waits for the first, then finds nothing left to do."""
    command = [sys.executable, "-m", "tests.data.ingest.ingester"]
    arguments = [str(tmp_path / "shared"), server.url(""), "400", "wait"]
    processes = [
        subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.split()[-1] == "400"
    assert set(Counter(request.path for request in server.requests).values()) == {1} | {320}
    ingest(tmp_path / "alone", [server.url(name) for name in names(400)])
    for name in (MANIFEST, bin_name(0)):
        together, alone = (tmp_path / folder / name for folder in ("shared", "alone"))
        assert together.read_bytes() == alone.read_bytes()


def killed_at_random(directory, server, num_urls, num_kills, seed):
    """Kills the ingest so often with SIGKILL, then lets it end."""
    rng = random.Random(seed)
    command = [sys.executable, "-m", "tests.data.ingest.ingester"]
    arguments = [str(directory), server.url(""), str(num_urls)]
    for _ in range(num_kills):
        process = subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    ended = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-1] == str(num_urls)


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [5, pytest.param(50, marks=pytest.mark.long)])
def test_a_killed_ingest_ends_with_the_store_of_an_undisturbed_one(tmp_path, server, num_kills):
    """Seed 0. Refetched is what was in flight: at most `concurrency` URLs a kill."""
    num_urls = 400
    killed_at_random(tmp_path / "killed", server, num_urls, num_kills, seed=0)
    asked = len(server.requests)
    ingest(tmp_path / "whole", [server.url(name) for name in names(num_urls)])
    assert manifest(tmp_path / "killed") == manifest(tmp_path / "whole")
    assert asked <= num_urls + num_kills * 128
    assert not list((tmp_path / "killed" / "spool").iterdir())


@pytest.mark.slow
def test_thousands_of_dead_links_take_little_memory_and_time(tmp_path, server):
    start = time.monotonic()
    news = ingest(tmp_path, [server.url(name) for name in names(2000)])
    assert news.complete
    assert news.causes["clips"] == 80
    assert news.causes["http_404"] == 1920
    assert time.monotonic() - start < 60
