"""Whatever a server does wrong ends in its own cause, within the deadline and the tries allowed.

Each of faults.FAULTS has its row here.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ddpm_lightning.data.ingest.fetch import Fetcher, FetchLimits
from tests.data.ingest.client import GIF, fetch, fetch_all
from tests.data.ingest.faults import FAULTS, head
from tests.data.ingest.server import GifServer

DEADLINE_S = 0.3
PATIENCE_S = 600  # of a busy machine; what a fault holds up, it holds up for ever
MAX_BYTES = 8 * 2**20

OUTCOMES = {  # cause, transient, tries; None: the GIF arrives
    "silent": ("timed_out", True, 1),
    "slow_headers": ("timed_out", True, 1),
    "slow_body": ("timed_out", True, 1),
    "endless_continue": ("timed_out", True, 1),
    "tiny_chunks": ("timed_out", True, 1),
    "endless_headers": ("bad_response", True, 1),
    "negative_length": ("bad_response", True, 1),
    "two_lengths": ("bad_response", True, 1),
    "bad_chunk": ("bad_response", True, 1),
    "not_http": ("bad_response", True, 1),
    "endless_body": ("too_large", False, 1),
    "endless_unframed_body": ("too_large", False, 1),
    "big": ("too_large", False, 1),
    "big_chunked": ("too_large", False, 1),
    "cut": ("incomplete", True, 4),
    "cut_chunked": ("incomplete", True, 4),
    "overstated": ("incomplete", True, 4),
    "reset_in_body": ("incomplete", True, 4),
    "reset_at_once": ("reset", True, 4),
    "closed_at_once": ("reset", True, 4),
    "gzip_bomb": ("not_a_gif", False, 1),
    "html": ("not_a_gif", False, 1),
    "xml": ("not_a_gif", False, 1),
    "empty": ("not_a_gif", False, 1),
    "no_location": ("http_302", False, 1),
    "location_of_odd_bytes": ("bad_url", False, 1),
    "mislabelled": (None, False, 1),
    "chunked": (None, False, 1),
    "unframed": (None, False, 1),
    "understated": None,  # see test_bytes_beyond_the_length_are_not_taken
}


@pytest.fixture(scope="module")
def server() -> Iterator[GifServer]:
    with GifServer({"a.gif": GIF}) as running:
        yield running


def test_every_fault_has_its_row() -> None:
    assert set(OUTCOMES) == set(FAULTS)


TAKE_THE_DEADLINE = [kind for kind, row in OUTCOMES.items() if row and row[0] == "timed_out"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind in TAKE_THE_DEADLINE[1:] else kind
        for kind, outcome in OUTCOMES.items()
        if outcome
    ],
)
def test_a_fault_ends_in_its_own_cause_within_the_deadline(server: GifServer, kind: str) -> None:
    server.requests.clear()
    start = time.monotonic()
    url = server.url(f"fault/{kind}/a.gif")
    expected = OUTCOMES[kind]
    assert expected is not None
    deadline_s = DEADLINE_S if expected[0] == "timed_out" else PATIENCE_S
    result = fetch(url, deadline_s=deadline_s, max_bytes=MAX_BYTES)
    assert (result.cause, result.transient, result.tries) == expected
    assert result.data == (None if result.cause else GIF)
    assert time.monotonic() - start < DEADLINE_S + PATIENCE_S
    assert result.tries <= len(server.requests) <= 2 * result.tries  # aiohttp asks twice
    assert result.detail.isascii()
    assert result.detail.isprintable()
    assert bool(result.detail) == bool(result.cause)


def test_a_large_body_is_left_where_it_exceeds_the_limit(server: GifServer) -> None:
    announced = fetch(server.url("fault/big/a.gif"), max_bytes=MAX_BYTES)
    streamed = fetch(server.url("fault/big_chunked/a.gif"), max_bytes=MAX_BYTES)
    assert announced.num_bytes == 0
    assert MAX_BYTES < streamed.num_bytes < MAX_BYTES + 2**20
    assert fetch(server.url("a.gif"), max_bytes=len(GIF)).data == GIF
    assert fetch(server.url("a.gif"), max_bytes=len(GIF) - 1).cause == "too_large"
    assert fetch(server.url("fault/chunked/a.gif"), max_bytes=len(GIF)).data == GIF
    assert fetch(server.url("fault/chunked/a.gif"), max_bytes=len(GIF) - 1).cause == "too_large"


def test_a_large_body_waits_for_one_of_the_places_for_large_ones(
    server: GifServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that many at once are bounded in memory. Of two, one place is enough; of none it waits."""
    monkeypatch.setattr("ddpm_lightning.data.ingest.fetch._LARGE", len(GIF) - 1)
    urls = [server.url("a.gif")] * 2
    monkeypatch.setattr("ddpm_lightning.data.ingest.fetch._NUM_LARGE", 1)
    assert [result.data for result in fetch_all(urls)] == [GIF, GIF]
    monkeypatch.setattr("ddpm_lightning.data.ingest.fetch._NUM_LARGE", 0)
    assert [result.cause for result in fetch_all(urls, deadline_s=0.5)] == ["timed_out"] * 2
    monkeypatch.setattr("ddpm_lightning.data.ingest.fetch._LARGE", len(GIF))
    assert [result.data for result in fetch_all(urls)] == [GIF, GIF]


def test_a_page_and_a_bomb_are_left_at_their_first_bytes(server: GifServer) -> None:
    for kind in ("html", "gzip_bomb"):
        assert fetch(server.url(f"fault/{kind}/a.gif")).num_bytes < 512 * 2**10


def test_bytes_beyond_the_length_are_not_taken(server: GifServer) -> None:
    result = fetch(server.url("fault/understated/a.gif"))
    assert result.data == GIF[:-1] or result.cause == "bad_response"


@pytest.mark.slow
def test_faults_do_not_disturb_what_is_fetched_beside_them(server: GifServer) -> None:
    quick = {kind: row[0] for kind, row in OUTCOMES.items() if row and row[0] != "timed_out"}
    urls = [server.url(f"fault/{kind}/a.gif") for kind in quick]
    urls += [server.url("a.gif", "localhost")] * 100
    results = fetch_all(urls, deadline_s=PATIENCE_S, per_host=100, max_bytes=2**21)
    assert [result.cause for result in results] == [*quick.values()] + [None] * 100


SEEDS = [
    head(f"Content-Length: {len(GIF)}") + GIF,
    head("Transfer-Encoding: chunked") + f"{len(GIF):x}\r\n".encode() + GIF + b"\r\n0\r\n\r\n",
    head("Location: http://127.0.0.1:PORT/", "Content-Length: 0", status="302 Found"),
    head("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", "X-Robots-Tag: a: b, noai", status="503 x"),
    head("Upgrade: websocket", "Connection: upgrade", status="101 x") + GIF,
    head("Content-Encoding: br", "Connection: keep-alive, upgrade", kind="m/x; charset=\xff") + GIF,
]
PIECES = [
    b"\r\n",
    b"\0",
    b"\xff",
    b": ",
    b"chunked",
    b"gzip",
    b"-1",
    b"101",
    b"204",
    b"304",
    b"9" * 20,
]
PIECES += [b"HTTP/1.1 100 Continue\r\n\r\n", b"Location: \xed\xb0\x80http://[\r\n", b"a" * 9000]
PIECES += [
    b"Content-Length: 7\r\n",
    b"Retry-After: Wed, 21 Oct 99999 07:28:00 +9999\r\n",
    b"\r\n" * 99,
]
PIECES += [
    b"Content-Type: \xff;=;\r\n",
    b"Content-Encoding: \xff\r\n",
    b"X-Robots-Tag: \xff:::,,\r\n",
]


def mutated(draw: random.Random, port: int) -> bytes:
    """A response with up to four pieces inserted, deleted, replaced or the rest cut off."""
    data = bytearray(draw.choice(SEEDS).replace(b"PORT", str(port).encode()))
    for _ in range(draw.randint(0, 4)):
        start = draw.randrange(min(len(data), 200) + 1)
        action = draw.choice(("insert", "delete", "replace", "cut"))
        piece = draw.choice(PIECES) if draw.random() < 0.5 else draw.randbytes(draw.randint(1, 4))
        if action == "insert":
            data[start:start] = piece
        elif action == "delete":
            del data[start : start + draw.randint(1, 8)]
        elif action == "replace":
            data[start : start + len(piece)] = piece
        else:
            del data[draw.randrange(len(data) + 1) :]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "number"),
    [(0, 400), *(pytest.param(k, 20_000, marks=pytest.mark.long) for k in (1, 2))],
)
def test_no_response_makes_a_fetcher_raise_or_hang(seed: int, number: int) -> None:
    draw = random.Random(seed)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has its own ways
            await reader.readuntil(b"\r\n\r\n")
        writer.write(mutated(draw, writer.get_extra_info("sockname")[1]))
        writer.close()

    async def run() -> tuple[Counter[str | None], list[Any]]:
        unhandled = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: unhandled.append(what))
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limits = FetchLimits(
            deadline_s=4 * DEADLINE_S,
            backoff_s=0.001,
            retry_after_cap_s=0.01,
            pause_s=0,
            per_host=100,
            allow_loopback=True,
        )
        causes: Counter[str | None] = Counter()
        async with Fetcher(limits) as fetcher:
            for _ in range(0, number, 100):
                fetches = (fetcher.fetch(f"http://127.0.0.1:{port}/{k}") for k in range(100))
                for result in await asyncio.gather(*fetches):
                    causes[result.cause] += 1
                    assert (result.data is None) == (result.cause is not None)
        server.close()
        return causes, unhandled

    causes, unhandled = asyncio.run(run())
    assert {None, "bad_response", "not_a_gif"} <= set(causes)  # the mutations neither miss nor kill
    assert unhandled == []
