"""Fetch GIFs over HTTP: the bytes, or the cause why there are none, within a deadline.

Defines Fetcher and Fetched. A URL is fetched in tries, a try follows redirects hop by hop, and a
hop waits for its host's turn, connects to public addresses only, and reads one response under a
limit of bytes. Whether these are a GIF is not known here, only that they begin like one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

try:
    import aiohttp
    from yarl import URL
except ImportError as error:
    raise ValueError("fetching needs aiohttp; pip install ddpm_lightning[tgif]") from error

from ddpm_lightning.data.ingest import robots
from ddpm_lightning.data.ingest.budgets import BodyMemory, Clock
from ddpm_lightning.data.ingest.fetch_errors import FetchError, StatusError, named
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.hosts import Hosts, retry_after
from ddpm_lightning.data.ingest.session import open_session

__all__ = ["FetchLimits", "Fetched", "Fetcher"]

_MAGIC, _TRAILER = (b"GIF87a", b"GIF89a"), b";"
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {429, 503}


class Fetched(NamedTuple):
    """What became of one URL: data, or a cause (see fetch_errors) and whether it may pass.

    detail: one line of ASCII. num_bytes: of all bodies read, over all tries. seconds: as
    FetchLimits.deadline_s counts them.
    """

    data: bytes | None
    cause: str | None
    transient: bool
    detail: str
    tries: int
    num_bytes: int
    seconds: float


@dataclass
class _Job:
    clock: Clock
    num_tries: int = 0
    num_bytes: int = 0


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
        self._hosts = Hosts(self._limits.per_host, self._limits.pause_s)
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._memory = BodyMemory(self._limits.max_memory)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._session = await self._exits.enter_async_context(open_session(self._limits))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    async def fetch(self, url: str) -> Fetched:
        """The bytes at url, or the cause why there are none; no server makes it raise or hang."""
        job = _Job(Clock(self._limits.deadline_s))
        data, failure = None, None
        while data is None:
            job.num_tries += 1
            try:
                data, failure = await self._follow(url, job), None
            except FetchError as error:
                # Its traceback holds this frame, and the body, until the next garbage collection.
                failure = error.with_traceback(None)
                if not await self._rested(failure, job):
                    break
        return Fetched(
            data=data,
            cause=failure.cause if failure else None,
            transient=failure.transient if failure else False,
            detail=failure.detail if failure else "",
            tries=job.num_tries,
            num_bytes=job.num_bytes,
            seconds=self._limits.deadline_s - job.clock.left,
        )

    async def _rested(self, failure: FetchError, job: _Job) -> bool:
        """Exponential back-off with full jitter; False if there is to be no other try."""
        if not failure.retried or job.num_tries >= self._limits.max_tries:
            return False
        longest = self._limits.backoff_s * 2 ** (job.num_tries - 1)
        return await job.clock.rest(longest * self._jitter())

    async def _follow(self, address: str, job: _Job) -> bytes:
        """One try: the body to which at most max_redirects redirects lead."""
        url = _parse(address)
        seen = [url]
        while True:
            body, location = await self._hop(url, job)
            if location is None:
                return body
            url = _parse(location)
            if url in seen:
                raise FetchError("redirect_loop", f"back at {url}")
            if len(seen) > self._limits.max_redirects:
                raise FetchError("too_many_redirects", f"more than {self._limits.max_redirects}")
            seen.append(url)

    async def _hop(self, url: URL, job: _Job) -> tuple[bytes, str | None]:
        """One request: a body, or the address to which the server sends us."""
        host = url.raw_host or ""
        async with self._hosts.turn(host), self._slots:
            if self._ready:
                await self._ready()
            with named():
                async with (
                    job.clock.running(),
                    self._session.get(url, allow_redirects=False) as response,
                ):
                    if response.status in _REDIRECTS:
                        return b"", _location(response)
                    if response.status in _BUSY:
                        wait = retry_after(
                            response.headers.get("Retry-After", ""), self._limits.retry_after_cap_s
                        )
                        self._hosts.close(host, wait or 0)
                    self._check(response)
                    return await self._read(response, job), None

    def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            raise StatusError(response.status)
        tags = response.headers.getall("X-Robots-Tag", [])
        if directive := robots.refusal(tags, self._limits.robot):
            raise FetchError("robots", f"X-Robots-Tag: {directive}")
        if (announced := response.content_length or 0) > self._limits.max_bytes:
            raise FetchError(
                "too_large", f"{announced:,} bytes, at most {self._limits.max_bytes:,}"
            )

    async def _read(self, response: aiohttp.ClientResponse, job: _Job) -> bytes:
        with self._memory.body() as body:
            async for chunk in response.content.iter_any():
                body.extend(chunk)
                job.num_bytes += len(chunk)
                if len(body) > self._limits.max_bytes:
                    raise FetchError("too_large", f"more than {self._limits.max_bytes:,} bytes")
                if len(body) >= len(_MAGIC[0]):
                    _check_magic(body, response)
                if self._memory.must_wait(body):
                    with job.clock.stopped():
                        await self._memory.room_for(body)
            _check_magic(body, response)
            _check_end(body, response)
            return bytes(body)


def _parse(address: str) -> URL:
    try:
        url = URL(address)
    except ValueError as error:
        raise FetchError("bad_url", error) from error
    if url.scheme not in {"http", "https"}:
        raise FetchError("bad_scheme", f"{url.scheme or 'none'}, not http or https")
    if url.user is not None or url.password is not None:
        raise FetchError("credentials", "the URL holds a user name or a password")
    if not url.raw_host:
        raise FetchError("bad_url", "no host")
    return url.with_fragment(None)


def _location(response: aiohttp.ClientResponse) -> str:
    if not (location := response.headers.get("Location")):
        raise FetchError("bad_redirect", f"status {response.status} without a Location")
    try:
        return str(response.url.join(URL(location)))
    except ValueError as error:
        raise FetchError("bad_redirect", error) from error


def _check_magic(body: bytearray, response: aiohttp.ClientResponse) -> None:
    if body.startswith(_MAGIC):
        return
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise FetchError("encoded", f"Content-Encoding: {encoding}")
    raise FetchError("not_a_gif", f"{response.content_type}, begins with {bytes(body[:16])!r}")


def _check_end(body: bytearray, response: aiohttp.ClientResponse) -> None:
    """Without a length and without chunks, a lost connection looks like the end of the body."""
    headers = response.headers
    if "Content-Length" in headers or "Transfer-Encoding" in headers:
        return
    if not body.rstrip().endswith(_TRAILER):
        raise FetchError("incomplete", f"no trailer after {len(body):,} bytes of unknown number")
