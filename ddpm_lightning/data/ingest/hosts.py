"""Politeness: how many requests a host gets at once, how far apart, and when it wants none.

Defines Hosts, which lets requests through host by host, and retry_after, the header's seconds.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class Hosts:
    """Hands out turns: at most per_host at a time at one host, starting pause_s apart.

    A host that nobody uses or waits for is forgotten, so a list of a million hosts costs nothing.
    """

    def __init__(self, per_host: int, pause_s: float) -> None:
        self._per_host = per_host
        self._pause_s = pause_s
        self._hosts: dict[str, _Host] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait until a request may start at the host; leave when it is over."""
        host = self._hosts.setdefault(name, _Host(self._per_host))
        host.num_users += 1
        try:
            async with host.slots:
                while (wait := host.closed_until - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                host.close_for(self._pause_s)
                yield
        finally:
            host.num_users -= 1
            self._forget(name)

    def close(self, name: str, seconds: float) -> None:
        """Start no request at the host for so long; those under way go on. Within a turn only."""
        self._hosts[name].close_for(seconds)

    def _forget(self, name: str) -> None:
        host = self._hosts.get(name)
        if host is None or host.num_users:
            return
        if (wait := host.closed_until - time.monotonic()) > 0:
            asyncio.get_running_loop().call_later(wait, self._forget, name)
        else:
            del self._hosts[name]


class _Host:
    def __init__(self, per_host: int) -> None:
        self.slots = asyncio.Semaphore(per_host)
        self.closed_until = 0.0  # monotonic seconds
        self.num_users = 0

    def close_for(self, seconds: float) -> None:
        self.closed_until = max(self.closed_until, time.monotonic() + seconds)


def retry_after(header: str, cap_s: float) -> float | None:
    """Seconds to wait, 0 to cap_s, from a number of seconds or an HTTP date; None if neither."""
    if header.isascii() and header.isdigit():
        return min(float(header), cap_s)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max((date - datetime.now(UTC)).total_seconds(), 0.0), cap_s)
