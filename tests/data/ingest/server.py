"""A real HTTP server on loopback that serves GIFs out of memory, and misbehaves where told to.

    with GifServer({"a.gif": data}) as server:
        server.url("a.gif")                     the GIF; 404 if there is none of that name
        server.url("status/410")                that status; ?retry_after=2 adds the header
        server.url("flaky/503/2/a.gif")         that status twice, then the GIF; ?retry_after=2
        server.url("slow/0.1/a.gif")            the GIF after so many seconds
        server.url("together/9/a.gif")          the GIF once nine requests are under way
        server.url("held/a.gif")                the GIF once server.release() was called
        server.url("redirect?to=http://...")    a redirect
        server.url("hops/3/a.gif")              three redirects to the GIF
        server.url("loop/1")                    redirects to loop/2 and back
        server.url("header/X-Name/a.gif?value=text")   the GIF with that header
        server.url("fault/cut/a.gif")           what faults.py calls by that name, with the GIF

It runs in a thread and counts what it is asked: requests, and how many at a time.
"""

import asyncio
import ssl
import threading
import time
from collections import Counter, defaultdict
from typing import NamedTuple, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.data.ingest.faults import FAULTS


class Request(NamedTuple):
    """One request: its path, the host it named, when it came, its headers."""

    path: str
    host: str
    when: float
    headers: dict[str, str]


class GifServer:
    """Serves gifs, name -> bytes, at 127.0.0.1 (also called localhost) on a free port."""

    def __init__(self, gifs: dict[str, bytes], ssl_context: ssl.SSLContext | None = None) -> None:
        self.gifs = gifs
        self._ssl_context = ssl_context
        self.requests: list[Request] = []
        self.most_at_once: Counter[str] = Counter()  # by host
        self._at_once: Counter[str] = Counter()
        self._failures_left: dict[str, int] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(600), "the server did not start"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(600)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{host}:{self.port}/{path}"

    def counts(self) -> Counter[str]:
        """Path -> how often it was asked for."""
        return Counter(request.path for request in self.requests)

    def times(self) -> dict[str, list[float]]:
        """Host -> when each request came, in seconds."""
        times = defaultdict(list)
        for request in self.requests:
            times[request.host].append(request.when)
        return times

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._counted])
        app.add_routes(
            [
                web.get("/status/{status}", self._status),
                web.get("/flaky/{status}/{times}/{name}", self._flaky),
                web.get("/slow/{seconds}/{name}", self._slow),
                web.get("/together/{number}/{name}", self._together),
                web.get("/redirect", self._redirect),
                web.get("/hops/{number}/{name}", self._hops),
                web.get("/loop/{side}", self._loop_to),
                web.get("/header/{header}/{name}", self._header),
                web.get("/fault/{kind}/{name}", self._fault),
                web.get("/{name}", self._gif),
            ]
        )
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        await web.TCPSite(
            runner, "127.0.0.1", 0, backlog=1024, ssl_context=self._ssl_context
        ).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.host.split(":")[0]
        self.requests.append(Request(request.path, host, time.monotonic(), dict(request.headers)))
        self._at_once[host] += 1
        self.most_at_once[host] = max(self.most_at_once[host], self._at_once[host])
        try:
            return await handler(request)
        finally:
            self._at_once[host] -= 1

    async def _gif(
        self, request: web.Request, headers: dict[str, str] | None = None
    ) -> web.Response:
        name = request.match_info["name"]
        if name not in self.gifs:
            return web.Response(status=404)
        return web.Response(body=self.gifs[name], content_type="image/gif", headers=headers)

    async def _status(self, request: web.Request) -> web.Response:
        headers = {}
        if "retry_after" in request.query:
            headers["Retry-After"] = request.query["retry_after"]
        return web.Response(status=int(request.match_info["status"]), headers=headers)

    async def _flaky(self, request: web.Request) -> web.Response:
        left = self._failures_left.setdefault(request.path, int(request.match_info["times"]))
        self._failures_left[request.path] = left - 1
        return await (self._status if left > 0 else self._gif)(request)

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.match_info["seconds"]))
        return await self._gif(request)

    async def _together(self, request: web.Request) -> web.Response:
        while max(self.most_at_once.values()) < int(request.match_info["number"]):
            await asyncio.sleep(0.01)
        return await self._gif(request)

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def _hops(self, request: web.Request) -> web.Response:
        number, name = int(request.match_info["number"]), request.match_info["name"]
        target = f"/hops/{number - 1}/{name}" if number > 1 else f"/{name}"
        return web.Response(status=301, headers={"Location": target})

    async def _loop_to(self, request: web.Request) -> web.Response:
        other = "2" if request.match_info["side"] == "1" else "1"
        return web.Response(status=302, headers={"Location": f"/loop/{other}"})

    async def _header(self, request: web.Request) -> web.Response:
        return await self._gif(request, {request.match_info["header"]: request.query["value"]})

    async def _fault(self, request: web.Request) -> web.Response:
        gif = self.gifs.get(request.match_info["name"], b"GIF89a")
        transport = request.transport
        if transport is not None:  # the client may be gone
            await FAULTS[request.match_info["kind"]](transport, gif)
            transport.close()
        return web.Response()  # goes nowhere
