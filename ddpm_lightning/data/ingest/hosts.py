"""Politeness: how many requests a host gets at once, how far apart, and when it wants none.

Defines Host, which lets requests through, and retry_after, the header's seconds.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Host:
    """Hands out turns: at most per_host at a time, starting pause_s apart."""

    def __init__(self, per_host: int, pause_s: float) -> None:
        self._slots = asyncio.Semaphore(per_host)
        self._pause_s = pause_s
        self._closed_until = 0.0  # monotonic seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a request may start; leave when it is over."""
        async with self._slots:
            while (wait := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self.close_for(self._pause_s)
            yield

    def close_for(self, seconds: float) -> None:
        """Start no request for so long; those under way go on."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)


def retry_after(header: str, cap_s: float) -> float:
    """Seconds to wait, at most cap_s; 0 where the header is no number of them."""
    return min(float(header), cap_s) if header.isascii() and header.isdigit() else 0.0
