"""Runs a Fetcher in the way that tests need: on loopback, without delays, and nothing unhandled."""

import asyncio
import socket
import sys

from ddpm_lightning.data.ingest.fetch import Fetcher, FetchLimits

GIF = b"GIF89a" + bytes(range(256)) * 8 + b";"  # begins like one and ends like one
_connections = []
_is_hooked = []


def fetch_all(urls, jitter=lambda: 1.0, **limits):
    """What became of each URL, all fetched at the same time."""
    limits = {
        "allow_loopback": True,
        "deadline_s": 5,
        "backoff_s": 0.001,
        "pause_s": 0,
        "retry_after_cap_s": 0.01,
        **limits,
    }

    async def run():
        unhandled = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: unhandled.append(what))
        async with Fetcher(FetchLimits(**limits), jitter) as fetcher:
            fetched = await asyncio.gather(*map(fetcher.fetch, urls))
        assert not unhandled
        return fetched

    return asyncio.run(run())


def fetch(url, **limits):
    return fetch_all([url], **limits)[0]


def connections():
    """A list to which this process adds the address of every connection that it begins."""
    if not _is_hooked:
        sys.addaudithook(
            lambda event, args: _connections.append(args[1]) if event == "socket.connect" else None
        )
        _is_hooked.append(True)
    _connections.clear()
    return _connections


def listener(host="127.0.0.1"):
    """A listening socket; accept() raises BlockingIOError as long as nobody has connected."""
    listening = socket.create_server((host, 0))
    listening.setblocking(False)
    return listening
