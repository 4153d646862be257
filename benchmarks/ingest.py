"""Ingest from a server on loopback: beside its decode workers alone, its memory, its ledger.

    python benchmarks/ingest.py [FOLDER]

FOLDER holds real GIFs, synthetic ones are made where it is not given; each is served under many
names, with a comment in it that makes it another file. The server is a process of its own. The two
ways take turns; figures are GIFs a second and the median of the rounds' ratios. Memory is that of
the ingesting process, and of it together with its decode workers, sampled ten times a second while
20,000 URLs, of which 80 % are dead, come in.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from aiohttp import web

from ddpm_lightning.data.decode import Decoded, Recipe
from ddpm_lightning.data.ingest.driver import Job, News, run
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.data.ingest.lists import Item
from ddpm_lightning.data.ingest.pool import DecodePool

RECIPE = Recipe(64, 64, 10.0)
LIMITS = FetchLimits(allow_loopback=True, pause_s=0, per_host=32, concurrency=64)
NUM_GIFS = 400
NUM_URLS, DEAD_SHARE = 20_000, 0.8
NUM_LEDGER_URLS = 20_000
ROUNDS = 3


def numbered(gif: bytes, number: int) -> bytes:
    """The GIF with a comment block before its trailer: other bytes, the same pictures."""
    text = f"{number:08d}".encode()
    return gif.rstrip()[:-1] + b"\x21\xfe" + bytes([len(text)]) + text + b"\0;"


def gifs_of(folder: Path | None) -> list[bytes]:
    if folder is None:
        from benchmarks.decode import synthetic  # and torch, which the ingest does without

        return [synthetic(seed, 24) for seed in range(8)]
    return [path.read_bytes() for path in sorted(folder.glob("*.gif"))]


def serve(folder: str) -> None:
    """The process of the server: prints its port; /N.gif is GIF N, all else is 404."""
    gifs = gifs_of(Path(folder) if folder else None)

    async def gif(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return web.Response(body=numbered(gifs[number % len(gifs)], number))

    async def main() -> None:
        app = web.Application()
        app.add_routes([web.get("/{number:\\d+}.gif", gif)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def ingest(base: str, names: list[str], num_workers: int) -> News:
    items = [Item(i, base + name, name, ()) for i, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(items, Path(folder), "benchmark", RECIPE, limits=LIMITS, num_workers=num_workers)
        return run(job, "none", wait=False, on_news=lambda news: None)


async def decode(gifs: list[bytes], num_workers: int) -> float:
    """Seconds that the workers take for NUM_GIFS of them, their start included."""
    start = time.monotonic()
    async with DecodePool(RECIPE, num_workers) as pool:
        files = (numbered(gifs[number % len(gifs)], number) for number in range(NUM_GIFS))
        found = await asyncio.gather(*map(pool.decode, files))
    assert all(isinstance(result, Decoded) for result in found), "choose sound GIFs"
    return time.monotonic() - start


def speed(base: str, gifs: list[bytes], num_workers: int) -> None:
    alone, whole = [], []
    for _ in range(ROUNDS):
        alone.append(NUM_GIFS / asyncio.run(decode(gifs, num_workers)))
        start = time.monotonic()
        news = ingest(base, [f"{number}.gif" for number in range(NUM_GIFS)], num_workers)
        assert news.causes["clips"] == NUM_GIFS, news
        whole.append(NUM_GIFS / (time.monotonic() - start))
    ratio = median(a / b for a, b in zip(whole, alone, strict=True))
    print(
        f"{num_workers} decode worker(s): alone {median(alone):.0f}/s, "
        f"ingest {median(whole):.0f}/s, {100 * ratio:.0f} %"
    )


def resident(pids: list[int]) -> int:
    """Bytes in memory, what processes share counted for each."""
    total = 0
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * resource.getpagesize()
    return total


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(base: str) -> None:
    """In this process, which then holds nothing else."""
    most = [0, 0]
    done = threading.Event()

    def watch() -> None:
        me = os.getpid()
        while not done.wait(0.1):
            most[0] = max(most[0], resident([me]))
            most[1] = max(most[1], resident([me, *children(me)]))

    every = round(1 / (1 - DEAD_SHARE))
    names = [f"{i}.gif" if i % every == 0 else f"dead-{i}.gif" for i in range(NUM_URLS)]
    threading.Thread(target=watch, daemon=True).start()
    start = time.monotonic()
    news = ingest(base, names, num_workers=2)
    done.set()
    seconds = time.monotonic() - start
    print(json.dumps({"causes": news.causes, "seconds": seconds, "bytes": most}))


def ledger() -> None:
    items = [
        Item(i, f"https://example.com/{i}.gif", f"{i}.gif", ()) for i in range(NUM_LEDGER_URLS)
    ]
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.db") as opened:
        start = time.monotonic()
        opened.add(items)
        for item in items:
            opened.record(item.url, "decoded", tries=1, num_bytes=10, sha256="0" * 64)
        for first in range(0, NUM_LEDGER_URLS, 256):
            opened.mark([item.url for item in items[first : first + 256]], "stored")
        assert sum(1 for _ in opened.rows("stored")) == NUM_LEDGER_URLS
        each = (time.monotonic() - start) / NUM_LEDGER_URLS
    print(f"ledger: {1000 * each:.2f} ms a URL")


def main(folder: str) -> None:
    module = [sys.executable, "-m", "benchmarks.ingest"]
    server = subprocess.Popen([*module, "--serve", folder], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    base = f"http://127.0.0.1:{int(server.stdout.readline())}/"
    try:
        gifs = gifs_of(Path(folder) if folder else None)
        for num_workers in range(1, (os.cpu_count() or 1) + 1):
            speed(base, gifs, num_workers)
        found = json.loads(subprocess.check_output([*module, "--memory", base]))
        own, together = (count / 2**20 for count in found["bytes"])
        print(
            f"{NUM_URLS:,} URLs ({found['causes']}): {found['seconds']:.0f} s, at most "
            f"{own:.0f} MiB, {together:.0f} MiB with 2 decode workers"
        )
    finally:
        server.kill()
    ledger()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--serve", folder]:
            serve(folder)
        case ["--memory", base]:
            memory(base)
        case [*given]:
            main(*given or [""])
