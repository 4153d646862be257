"""Ingests that were killed, damaged or started twice: nothing is lost, nothing fetched in vain."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ddpm_lightning.data.decode import decode
from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.data.ingest.spool import Spool
from ddpm_lightning.data.shards import mark_name
from ddpm_lightning.data.store import ClipStore
from tests.data.ingest.ingester import LIMITS, RECIPE, ingest, job, names
from tests.data.ingest.server import GifServer
from tests.data.ingest.test_driver import ROOT, gif, manifest, server
from tests.data.stores import bin_of, index_of

pytestmark = pytest.mark.slow  # as a whole, not one by one

__all__ = ["server"]  # a fixture


def test_of_a_damaged_shard_the_damaged_clip_alone_is_fetched_again(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url(name) for name in names(60)]
    ingest(tmp_path, urls)
    before = manifest(tmp_path)
    content = bytearray(bin_of(tmp_path, 1).read_bytes())
    content[100] ^= 1
    bin_of(tmp_path, 1).write_bytes(content)
    ClipStore(tmp_path).verify()
    assert (tmp_path / mark_name(1)).exists()
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (1, True)
    assert manifest(tmp_path) == before
    assert not ClipStore(tmp_path).verify()


def test_the_sound_clips_of_a_damaged_shard_survive_their_links(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url(name) for name in names(20)]
    ingest(tmp_path, urls)
    content = bytearray(bin_of(tmp_path, 0).read_bytes())
    content[0] ^= 1
    bin_of(tmp_path, 0).write_bytes(content)
    ClipStore(tmp_path).verify()
    server.gifs.clear()
    news = ingest(tmp_path, urls)
    assert dict(news.causes) == {"clips": 3, "http_404": 17}
    store = ClipStore(tmp_path)
    assert [entry.key for entry in store.entries] == ["00005.gif", "00010.gif", "00015.gif"]
    assert not store.verify()


def test_a_retried_clip_survives_a_kill_before_its_shard_is_written_again(
    tmp_path: Path, server: GifServer
) -> None:
    """As after a kill: the ledger says decoded, the clip is in the spool, its shard is without."""
    urls = [server.url(path) for path in ("0.gif", "flaky/500/4/5.gif", "10.gif")]
    ingest(tmp_path, urls)
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.retry("transient")
        assert ledger.counts()["new", None] == 1
        Spool(tmp_path / "spool").put(urls[1], decode(gif(5), RECIPE))
        ledger.record(urls[1], "decoded", sha256="0" * 64)
    news = ingest(tmp_path, urls)
    assert (news.num_fetched, news.complete) == (0, True)
    assert [entry.key for entry in ClipStore(tmp_path).entries] == [
        "00000.gif",
        "00001.gif",
        "00002.gif",
    ]


@pytest.mark.parametrize("file", [bin_of, index_of])
def test_a_shard_that_is_not_what_is_listed_is_made_again(
    file: Callable[[Path, int], Path], tmp_path: Path, server: GifServer
) -> None:
    """As after a kill between a shard's files and the manifest, or a file cut by the disk."""
    urls = [server.url(path) for path in names(60)]
    ingest(tmp_path, urls)
    before = manifest(tmp_path)
    path = file(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:50])
    assert ingest(tmp_path, urls).complete
    assert manifest(tmp_path) == before
    assert len(ClipStore(tmp_path)) == 12


@pytest.mark.long
def test_wrong_bytes_are_not_given_a_right_checksum(tmp_path: Path, server: GifServer) -> None:
    """A shard is written again for another clip's sake, while one of its own has rotted."""
    urls = [server.url(path) for path in ("0.gif", "flaky/500/4/5.gif", "10.gif")]
    ingest(tmp_path, urls)
    content = bytearray(bin_of(tmp_path, 0).read_bytes())
    content[7] ^= 1
    bin_of(tmp_path, 0).write_bytes(content)
    news = ingest(tmp_path, urls, retry="transient")
    assert not news.complete  # the rotten clip is lost, and known to be
    assert ingest(tmp_path, urls).complete
    store = ClipStore(tmp_path)
    assert len(store) == 3
    assert not store.verify()


@pytest.mark.long
def test_a_lost_spool_file_is_fetched_again(tmp_path: Path, server: GifServer) -> None:
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


def test_a_second_ingester_is_refused_by_name(tmp_path: Path, server: GifServer) -> None:
    with (
        Ledger(tmp_path / "ledger.db"),
        pytest.raises(ValueError, match=str(os.getpid())) as error,
    ):
        ingest(tmp_path, [server.url("0.gif")])
    assert "\n" not in str(error.value)


def test_of_equal_gifs_the_first_in_the_list_stays(tmp_path: Path, server: GifServer) -> None:
    """Though the other came first, and its block was written long before."""
    limits = replace(LIMITS, retry_after_cap_s=2.0)
    first = server.url("flaky/503/1/0.gif?retry_after=2", "localhost")
    others = [server.url(f"{i}.gif") for i in range(5, 100, 5)]
    urls = [first, *others, server.url("0.gif")]  # the last one alone in its block
    news = ingest(tmp_path, urls, limits=limits)
    assert news.complete
    store = ClipStore(tmp_path)
    assert store.skipped_keys == {"00020.gif": "duplicate"}
    assert store.entries[0].key == "00000.gif"
    assert len(store) == 20


@pytest.mark.long
def test_a_duplicate_takes_the_place_of_a_clip_that_is_lost(
    tmp_path: Path, server: GifServer
) -> None:
    urls = [server.url("0.gif"), server.url("header/X-Name/0.gif?value=copy")]
    ingest(tmp_path, urls)
    assert ClipStore(tmp_path).skipped_keys == {"00001.gif": "duplicate"}
    content = bytearray(bin_of(tmp_path, 0).read_bytes())
    content[0] ^= 1
    bin_of(tmp_path, 0).write_bytes(content)
    ClipStore(tmp_path).verify()
    server.gifs["0.gif"] = server.gifs["5.gif"]  # the link means another GIF now
    assert ingest(tmp_path, urls).complete
    assert len(ClipStore(tmp_path)) == 1
    assert not ClipStore(tmp_path).verify()


@pytest.mark.long
def test_two_ingesters_of_one_list_fetch_every_url_once(tmp_path: Path, server: GifServer) -> None:
    """Two processes: the second one waits for the first, then finds nothing left to do."""
    command = [sys.executable, "-m", "tests.data.ingest.ingester"]
    arguments = [str(tmp_path / "shared"), server.url(""), "400", "wait"]
    processes = [
        subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        assert out.split()[-1] == "400"
    assert set(Counter(request.path for request in server.requests).values()) == {1} | {320}
    ingest(tmp_path / "alone", [server.url(name) for name in names(400)])
    assert manifest(tmp_path / "shared") == manifest(tmp_path / "alone")
    assert not ClipStore(tmp_path / "shared").verify()


def killed_at_random(
    directory: Path, server: GifServer, num_urls: int, num_kills: int, seed: int
) -> None:
    """Kills the ingest so often with SIGKILL, then lets it end."""
    rng = random.Random(seed)
    command = [sys.executable, "-m", "tests.data.ingest.ingester"]
    arguments = [str(directory), server.url(""), str(num_urls)]
    for _ in range(num_kills):
        process = subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
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
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-1] == str(num_urls)


@pytest.mark.long
@pytest.mark.parametrize("num_kills", [5, pytest.param(50, marks=pytest.mark.long)])
def test_a_killed_ingest_ends_with_the_store_of_an_undisturbed_one(
    tmp_path: Path, server: GifServer, num_kills: int
) -> None:
    """Seed 0. Refetched is what was in flight: at most `concurrency` URLs a kill."""
    num_urls = 400
    killed_at_random(tmp_path / "killed", server, num_urls, num_kills, seed=0)
    asked = len(server.requests)
    ingest(tmp_path / "whole", [server.url(name) for name in names(num_urls)])
    assert manifest(tmp_path / "killed") == manifest(tmp_path / "whole")
    assert asked <= num_urls + num_kills * 128
    assert not list((tmp_path / "killed" / "spool").iterdir())
