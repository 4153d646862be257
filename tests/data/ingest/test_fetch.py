"""What a Fetcher brings: bytes, redirects followed, politeness, many at once in little memory."""

import asyncio
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ddpm_lightning.data.ingest.fetch import Fetched, Fetcher, FetchLimits
from tests.data.ingest.client import GIF, fetch, fetch_all
from tests.data.ingest.server import GifServer


@pytest.fixture
def server() -> Iterator[GifServer]:
    with GifServer({"a.gif": GIF}) as running:
        yield running


def test_a_gif_comes_back_byte_for_byte(server: GifServer) -> None:
    result = fetch(server.url("a.gif"))
    assert result.data == GIF
    assert result[1:] == (None, False, "", 1, len(GIF))


def test_requests_name_the_tool_ask_for_no_compression_and_carry_no_cookie(
    server: GifServer,
) -> None:
    giver = server.url("header/Set-Cookie/a.gif?value=a=b%3Bpath=/", "localhost")
    fetch_all([giver, server.url("a.gif", "localhost")], per_host=1)
    assert len(server.requests) == 2
    for request in server.requests:
        assert request.headers["User-Agent"].startswith("ddpm_lightning ")
        assert request.headers["Accept-Encoding"] == "identity"
        assert "Cookie" not in request.headers


def test_redirects_are_followed_five_times_and_not_six(server: GifServer) -> None:
    five, six = fetch_all([server.url("hops/5/a.gif"), server.url("hops/6/a.gif")])
    assert five.data == GIF
    assert (six.cause, six.transient, six.tries) == ("too_many_redirects", False, 1)
    assert server.counts()["/a.gif"] == 1


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.gif",
        "data:image/gif;base64,R0lGODlh",
        "http://example.com:99999/",
    ],
)
def test_redirects_lead_to_plain_http_only(server: GifServer, target: str) -> None:
    result = fetch(server.url(f"redirect?to={target}"))
    assert (result.cause, result.transient, result.tries) == ("bad_url", False, 1)


def test_a_redirect_loop_ends(server: GifServer) -> None:
    result = fetch(server.url("loop/1"))
    assert (result.cause, result.transient) == ("too_many_redirects", False)


@pytest.mark.parametrize("url", ["", "a.gif", "file:///a", "http://a..b/", "http:///"])
def test_what_is_no_url_is_a_cause(url: str) -> None:
    result = fetch(url)
    assert result.cause == "bad_url"
    assert (result.data, result.transient, result.tries) == (None, False, 1)


@pytest.mark.parametrize(
    ("tag", "refused"),
    [
        ("noai", True),
        ("nofollow, NoImageAI", True),
        ("noindex", True),
        ("ddpm_lightning: noindex", True),
        ("otherbot: nofollow, ddpm_lightning: noai", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", True),
        ("otherbot: noindex, noai", False),
        ("nofollow", False),
        ("", False),
    ],
)
def test_robots_headers_are_respected(server: GifServer, tag: str, refused: bool) -> None:
    result = fetch(server.url(f"header/X-Robots-Tag/a.gif?value={tag}"))
    assert (result.cause, result.transient) == ("robots" if refused else None, False)
    assert (result.data is None) == refused


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 410, 451, 204, 206])
def test_final_statuses_are_asked_for_once(server: GifServer, status: int) -> None:
    result = fetch(server.url(f"status/{status}"))
    assert (result.cause, result.transient, result.tries) == (f"http_{status}", False, 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
def test_passing_statuses_are_tried_four_times(server: GifServer, status: int) -> None:
    result = fetch(server.url(f"status/{status}"))
    assert (result.cause, result.transient, result.tries) == (f"http_{status}", True, 4)
    assert len(server.requests) == 4
    assert fetch(server.url(f"flaky/{status}/3/a.gif")).data == GIF


def test_a_dead_name_and_a_closed_port_are_tried_four_times(server: GifServer) -> None:
    closed = server.url("a.gif").replace(str(server.port), "9")
    for url, cause in (("http://no-such-host.invalid/a.gif", "dns"), (closed, "connect")):
        result = fetch(url)
        assert (result.cause, result.transient, result.tries) == (cause, True, 4)


@pytest.mark.slow
def test_back_off_doubles_and_its_jitter_is_full(server: GifServer) -> None:
    fetch(server.url("status/500"), backoff_s=0.05)  # jitter 1: the longest
    times = server.times()["127.0.0.1"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    for gap, longest in zip(gaps, (0.05, 0.1, 0.2), strict=True):
        assert gap >= longest
    start = time.monotonic()
    (result,) = fetch_all([server.url("status/500")], jitter=lambda: 0.0, backoff_s=1000)
    assert result.tries == 4
    assert time.monotonic() - start < 1000


def test_a_try_that_the_deadline_leaves_no_time_for_is_not_waited_for(server: GifServer) -> None:
    result = fetch(server.url("status/500"), backoff_s=1000, deadline_s=500)
    assert (result.cause, result.tries) == ("http_500", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "header"),
    [
        (429, "3600"),
        pytest.param(429, "9" * 5000, marks=pytest.mark.slow),
    ],
    ids=["seconds", "many"],
)
def test_retry_after_closes_the_host_up_to_its_cap(
    server: GifServer, status: int, header: str
) -> None:
    """It holds for every URL of that host and for no other host."""
    cap = 0.5
    urls = [server.url(f"flaky/{status}/1/a.gif?retry_after={header}")]
    urls += [server.url("a.gif"), server.url("a.gif", "localhost")]
    results = fetch_all(urls, per_host=1, retry_after_cap_s=cap)
    assert [result.data for result in results] == [GIF] * 3
    assert [result.tries for result in results] == [2, 1, 1]
    times = server.times()
    first, *later = times["127.0.0.1"]
    assert len(later) == 2
    assert all(cap <= when - first < 600 for when in later)
    assert times["localhost"][0] < min(later)


@pytest.mark.long
def test_a_closed_host_takes_nothing_off_a_deadline(server: GifServer) -> None:
    url = server.url("flaky/503/1/a.gif?retry_after=9")
    (result,) = fetch_all([url], retry_after_cap_s=9, deadline_s=8)
    assert (result.data, result.tries) == (GIF, 2)


@pytest.mark.parametrize(
    "header", ["soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9", "nan", "٣"]
)
def test_odd_or_past_retry_after_does_not_close_a_host(server: GifServer, header: str) -> None:
    start = time.monotonic()
    result = fetch(server.url(f"flaky/503/1/a.gif?retry_after={header}"), retry_after_cap_s=600)
    assert result.data == GIF
    assert time.monotonic() - start < 600


@pytest.mark.slow
def test_a_host_gets_so_many_requests_at_a_time_and_so_far_apart(server: GifServer) -> None:
    urls = [server.url("slow/0.03/a.gif", name) for name in ("127.0.0.1", "localhost") * 4]
    fetch_all(urls, per_host=2)
    assert server.most_at_once == {"127.0.0.1": 2, "localhost": 2}
    start = time.monotonic()
    fetch_all(urls, per_host=4, pause_s=0.1)
    assert time.monotonic() - start > 3 * 0.1
    server.most_at_once.clear()
    fetch_all(urls, concurrency=1)
    assert max(server.most_at_once.values()) == 1


@pytest.mark.slow
def test_hundreds_are_under_way_at_once(server: GifServer) -> None:
    limits: dict[str, Any] = {"concurrency": 300, "per_host": 300, "deadline_s": 600}
    results = fetch_all([server.url("together/300/a.gif")] * 300, **limits)
    assert [result.data for result in results] == [GIF] * 300
    assert server.most_at_once == {"127.0.0.1": 300}


def test_a_cancelled_fetch_gives_back_its_turn(server: GifServer) -> None:
    async def run() -> Fetched:
        async with Fetcher(FetchLimits(per_host=1, concurrency=1, allow_loopback=True)) as fetcher:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(fetcher.fetch(server.url("fault/silent/a.gif")), 0.05)
            return await fetcher.fetch(server.url("a.gif"))

    assert asyncio.run(run()).data == GIF


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path, server: GifServer) -> None:
    plain = server.url("a.gif").replace("http", "https")
    assert (fetch(plain).cause, fetch(plain).transient) == ("tls", True)
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    command += " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key -out cert"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with GifServer({"a.gif": GIF}, context) as secure:
        result = fetch(secure.url("a.gif", "localhost"))
        assert (result.cause, result.transient, result.tries) == ("tls", True, 1)
        assert secure.requests == []


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_aiohttp_is_imported_by_the_fetcher_only_and_missed_in_one_line() -> None:
    package = "ddpm_lightning.data.ingest"
    code = f"import sys, {package}.fetch_limits, {package}.addresses, {package}.hosts; "
    assert python(code + "assert 'aiohttp' not in sys.modules").returncode == 0
    code = f"import sys; sys.modules['aiohttp'] = None; import {package}.fetch"
    line = python(code).stderr.splitlines()[-1]
    assert line == "ValueError: fetching needs aiohttp; pip install ddpm_lightning[tgif]"


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_host": 0},
        {"max_tries": 0},
        {"pause_s": -1},
        {"backoff_s": float("nan")},
        {"deadline_s": 0},
    ],
)
def test_limits_that_cannot_be_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        FetchLimits(**wrong)
    assert "\n" not in str(caught.value)
