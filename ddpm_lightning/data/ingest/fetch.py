"""Fetch GIFs over HTTP: the bytes, or the cause why there are none, within a deadline.

Defines Fetcher and Fetched. A URL is fetched in tries; a try waits for its host's turn, connects to
public addresses only, follows redirects, and reads one response under a limit of bytes. Whether
these are a GIF is not known here, only that they begin like one.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

try:
    import aiohttp  # noqa: F401 - session and fetch_errors need it
except ImportError as error:
    raise ValueError("fetching needs aiohttp; pip install ddpm_lightning[tgif]") from error

from ddpm_lightning.data.ingest import robots
from ddpm_lightning.data.ingest.fetch_errors import FetchError, StatusError, named
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.hosts import Host, retry_after
from ddpm_lightning.data.ingest.session import open_session

__all__ = ["FetchLimits", "Fetched", "Fetcher"]

_MAGIC = (b"GIF87a", b"GIF89a")
_BUSY = {429, 503}
_LARGE, _NUM_LARGE = 2**21, 8  # bytes from which a body is large, and how many are read at a time


class Fetched(NamedTuple):
    """What became of one URL: data, or a cause (see fetch_errors) and whether it may pass.

    detail: one line of ASCII. num_bytes: of all bodies read, over all tries.
    """

    data: bytes | None
    cause: str | None
    transient: bool
    detail: str
    tries: int
    num_bytes: int


class Fetcher:
    """Fetches any number of URLs at the same time; an async context manager.

    Args:
        jitter: draws from [0, 1) which share of the longest back-off is waited.
        ready: is awaited before every request, so that whoever takes the bytes can slow it down.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        jitter: Callable[[], float] = random.random,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._limits = limits or FetchLimits()
        self._jitter, self._ready = jitter, ready
        self._hosts: WeakValueDictionary[str, Host] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._large = asyncio.Semaphore(_NUM_LARGE)

    async def __aenter__(self) -> Self:
        self._session = open_session(self._limits.allow_loopback)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def fetch(self, url: str) -> Fetched:
        """The bytes at url, or the cause why there are none; no server makes it raise or hang."""
        limits = self._limits
        name = urlsplit(url).hostname or ""
        host = self._hosts.setdefault(name, Host(limits.per_host, limits.pause_s))
        left = limits.deadline_s
        tries = num_bytes = 0
        while True:
            tries += 1
            body, failure = bytearray(), None
            async with host.turn(), self._slots:
                if self._ready:
                    await self._ready()
                start = time.monotonic()
                try:
                    await self._read(url, host, left, body)
                except FetchError as error:
                    # Its traceback holds this frame, and the body, until garbage is collected.
                    failure = error.with_traceback(None)
                left -= time.monotonic() - start
            num_bytes += len(body)
            if failure is None:
                return Fetched(bytes(body), None, False, "", tries, num_bytes)
            # Exponential back-off with full jitter.
            wait = limits.backoff_s * 2 ** (tries - 1) * self._jitter()
            if not failure.retried or tries >= limits.max_tries or wait >= left:
                cause, transient, detail = failure.cause, failure.transient, failure.detail
                return Fetched(None, cause, transient, detail, tries, num_bytes)
            await asyncio.sleep(wait)
            left -= wait

    async def _read(self, url: str, host: Host, seconds: float, body: bytearray) -> None:
        """One try: fill the body with what lies at url. Raises FetchError."""
        limits = self._limits
        get = self._session.get(url, max_redirects=limits.max_redirects + 1)  # aiohttp counts one
        with named():
            async with asyncio.timeout(seconds), get as response, AsyncExitStack() as held:
                if response.status in _BUSY:
                    header = response.headers.get("Retry-After", "")
                    host.close_for(retry_after(header, limits.retry_after_cap_s))
                if response.status != 200:
                    raise StatusError(response.status)
                if directive := robots.refusal(response.headers.getall("X-Robots-Tag", [])):
                    raise FetchError("robots", f"X-Robots-Tag: {directive}")
                most = f"at most {limits.max_bytes:,} bytes"
                if (announced := response.content_length or 0) > limits.max_bytes:
                    raise FetchError("too_large", f"{announced:,} bytes, {most}")
                is_large = False
                async for chunk in response.content.iter_any():
                    body.extend(chunk)
                    if len(body) > _LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                    if len(body) > limits.max_bytes:
                        raise FetchError("too_large", f"more bytes, {most}")
                    if len(body) >= len(_MAGIC[0]) and not body.startswith(_MAGIC):
                        break
                if not body.startswith(_MAGIC):
                    begin = bytes(body[:16])
                    raise FetchError("not_a_gif", f"{response.content_type}, begins with {begin!r}")
