"""The aiohttp session that fetches: public addresses only, and nothing decompressed.

Every address is checked where its socket is opened, so none can change between the check and the
connection, be it of a redirect, of a name that resolves anew, or given in numbers. Proxies named in
the environment are not used: they would connect where we cannot check.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aiohttp

from ddpm_lightning.data.ingest.addresses import socket_opener
from ddpm_lightning.data.ingest.robots import ROBOT

_NUM_LOOKUPS = 32  # of names, at the same time; asyncio's own threads are fewer
_IDLE_S = 3.0  # a connection that nobody used for so long is closed


def open_session(allow_loopback: bool) -> aiohttp.ClientSession:
    """Return a session without cookies or timeouts of its own, which are the caller's."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_NUM_LOOKUPS))
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_IDLE_S,
        resolver=aiohttp.ThreadedResolver(),
        socket_factory=socket_opener(allow_loopback),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": f"{ROBOT} (fetches animated GIFs to train video models on)",
            "Accept": "image/gif, */*;q=0.1",
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
    )
