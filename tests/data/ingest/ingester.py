"""A process that ingests a list from a server on loopback until it is done, or somebody kills it.

python -m tests.data.ingest.ingester DIRECTORY BASE_URL NUM_URLS [wait]: every fifth URL is one of
the server's GIFs, the others are dead. Prints "ready", then its last news.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.ingest.driver import Job, News, run
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.lists import Item

LIMITS = FetchLimits(
    allow_loopback=True, pause_s=0, backoff_s=0.001, retry_after_cap_s=0.01, deadline_s=5
)
RECIPE = Recipe(8, 8, 10.0)


def names(num_urls: int) -> list[str]:
    return [f"{i}.gif" if i % 5 == 0 else f"status/404?{i}" for i in range(num_urls)]


def job(directory: Path, urls: Sequence[str], **options: Any) -> Job:
    items = [Item(i, url, f"{i:05d}.gif", (f"number {i}",)) for i, url in enumerate(urls)]
    options = {"block_size": 20, "num_workers": 1, "limits": LIMITS, **options}
    return Job(items, directory, "a list", RECIPE, **options)


def ingest(
    directory: Path, urls: Sequence[str], retry: str = "none", wait: bool = False, **options: Any
) -> News:
    return run(job(directory, urls, **options), retry, wait=wait, on_news=lambda news: None)


def main(directory: str, base: str, num_urls: str, *words: str) -> None:
    print("ready", flush=True)
    urls = [base + name for name in names(int(num_urls))]
    news = ingest(Path(directory), urls, wait="wait" in words)
    print(news.num_settled, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
