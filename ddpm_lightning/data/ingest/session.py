"""The aiohttp session that fetches: public addresses only, nothing decompressed, nothing repeated.

Every address is checked where its socket is opened, so none can change between the check and the
connection, be it of a redirect, of a name that resolves anew, or given in numbers. Proxies named in
the environment are not used: they would connect where we cannot check.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ddpm_lightning.data.ingest.addresses import ForbiddenAddressError, forbidden, socket_opener
from ddpm_lightning.data.ingest.fetch_errors import FetchError
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits

_NUM_LOOKUPS = 32  # at the same time; asyncio's own threads are few, and others need them
_IDLE_S = 3.0  # a connection that nobody used for so long is closed


@asynccontextmanager
async def open_session(limits: FetchLimits) -> AsyncIterator[aiohttp.ClientSession]:
    """A session without cookies, redirect limits or timeouts of its own, which are the caller's."""
    resolver = _Resolver(limits.allow_loopback)
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_IDLE_S,
        resolver=resolver,
        socket_factory=socket_opener(limits.allow_loopback),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": limits.user_agent,
            "Accept": "image/gif, */*;q=0.1",
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        middlewares=[_no_second_request],
    )
    try:
        async with session:
            yield session
    finally:
        await resolver.close()


async def _no_second_request(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """When a connection is lost, aiohttp would at once send the same GET again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise FetchError("reset", error) from error


class _Resolver(AbstractResolver):
    """getaddrinfo in threads; of a name's addresses only those that may be reached are kept."""

    def __init__(self, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback
        self._threads = ThreadPoolExecutor(_NUM_LOOKUPS, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        found = {str(info[4][0]): info for info in infos}
        refused = {address: forbidden(address, self._allow_loopback) for address in found}
        if all(refused.values()):
            address, name = next(iter(refused.items()))
            raise ForbiddenAddressError(address, name or "")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=info[0],
                proto=info[2],
                flags=socket.AI_NUMERICHOST,
            )
            for address, info in found.items()
            if not refused[address]
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
