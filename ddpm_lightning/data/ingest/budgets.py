"""What fetching may use up: Clock, the seconds of one URL, and BodyMemory, the bytes of all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Clock:
    """Counts down the seconds that one URL may take; left is what remains.

    It runs while a server has the word, and stands still while we are the cause of waiting.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._timeout = asyncio.timeout(None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises TimeoutError when no time is left."""
        now = asyncio.get_running_loop().time
        start = now()
        self._timeout = asyncio.timeout(self.left)
        try:
            async with self._timeout:
                yield
        finally:
            self.left -= now() - start

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within running: what happens here takes no time."""
        now = asyncio.get_running_loop().time
        start, until = now(), self._timeout.when()
        assert until is not None
        self._timeout.reschedule(None)
        try:
            yield
        finally:
            self.left += now() - start
            self._timeout.reschedule(until + now() - start)

    async def rest(self, seconds: float) -> bool:
        """Sleep, if that leaves time for anything afterwards; say whether it did."""
        if seconds >= self.left:
            return False
        await asyncio.sleep(seconds)
        self.left -= seconds
        return True


class BodyMemory:
    """Holds the bodies that are arriving: when they fill it, only the oldest may grow.

    The oldest can always be finished, so nothing deadlocks, and no more than max_bytes and one
    whole body are ever held, however many servers send however much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bodies: dict[int, bytearray] = {}  # by id, oldest first
        self._freed = asyncio.Event()

    @contextmanager
    def body(self) -> Iterator[bytearray]:
        """A new, empty body, which is forgotten afterwards."""
        body = bytearray()
        self._bodies[id(body)] = body
        try:
            yield body
        finally:
            del self._bodies[id(body)]
            self._freed.set()

    def must_wait(self, body: bytearray) -> bool:
        """Whether body may not grow now."""
        is_oldest = next(iter(self._bodies)) == id(body)
        return not is_oldest and sum(map(len, self._bodies.values())) >= self._max_bytes

    async def room_for(self, body: bytearray) -> None:
        """Wait until body may grow."""
        while self.must_wait(body):
            self._freed.clear()
            await self._freed.wait()
