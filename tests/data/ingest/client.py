"""Runs a Fetcher in the way that tests need: on loopback, without delays, and nothing unhandled."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from ddpm_lightning.data.ingest.fetch import Fetched, Fetcher, FetchLimits

GIF = b"GIF89a" + bytes(range(256)) * 8 + b";"  # begins like one and ends like one
_connections: list[object] = []
_is_hooked: list[bool] = []


def fetch_all(
    urls: list[str], jitter: Callable[[], float] = lambda: 1.0, **limits: Any
) -> list[Fetched]:
    """What became of each URL, all fetched at the same time."""
    limits = {
        "allow_loopback": True,
        "deadline_s": 5,
        "backoff_s": 0.001,
        "pause_s": 0,
        "retry_after_cap_s": 0.01,
        **limits,
    }

    async def run() -> list[Fetched]:
        unhandled: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: unhandled.append(what))
        async with Fetcher(FetchLimits(**limits), jitter) as fetcher:
            fetched = await asyncio.gather(*map(fetcher.fetch, urls))
        assert not unhandled
        return fetched

    return asyncio.run(run())


def fetch(url: str, **limits: Any) -> Fetched:
    return fetch_all([url], **limits)[0]


def connections() -> list[object]:
    """A list to which this process adds the address of every connection that it begins."""
    if not _is_hooked:
        sys.addaudithook(
            lambda event, args: _connections.append(args[1]) if event == "socket.connect" else None
        )
        _is_hooked.append(True)
    _connections.clear()
    return _connections


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket; accept() raises BlockingIOError as long as nobody has connected."""
    listening = socket.create_server((host, 0))
    listening.setblocking(False)
    return listening
