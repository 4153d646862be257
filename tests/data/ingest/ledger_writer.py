"""A process that takes up URLs and records them, one after the other, until somebody kills it.

python -m tests.data.ingest.ledger_writer PATH NUM_URLS: prints "ready" when all rows are there, and
then the position of each row after it was recorded. Run again, it continues.
"""

import sys
from pathlib import Path
from typing import Any

from ddpm_lightning.data.ingest.ledger import Ledger
from ddpm_lightning.data.ingest.lists import Item


def items(num_urls: int) -> list[Item]:
    return [
        Item(i, f"https://example.com/{i}.gif", f"{i}.gif", (f"a cat, number {i}",))
        for i in range(num_urls)
    ]


def outcome(position: int) -> dict[str, Any]:
    """Four of five URLs are dead, half of these perhaps not forever."""
    if position % 5 == 0:
        return {"state": "decoded", "num_bytes": 1000 + position, "sha256": f"{position:064x}"}
    transient = position % 2 == 0
    cause = "http_503" if transient else "http_404"
    return {"state": "failed", "cause": cause, "transient": transient, "detail": "no luck"}


def main(path: Path | str, num_urls: int | str) -> None:
    with Ledger(Path(path)) as ledger:
        ledger.add(items(int(num_urls)))
        print("ready", flush=True)
        for row in ledger.rows("new"):
            ledger.record(row.url, tries=1, **outcome(row.position))
            print(row.position, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
