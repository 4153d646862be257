"""Lists of GIF URLs with their sentences, and official splits of them.

Defines Item (one URL), read_list (a file of any format that rows knows -> items, and a ListReport
of everything odd in it) and read_split (the keys of an official split). Nothing is fetched.
"""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from ddpm_lightning.data.ingest.files import read_file
from ddpm_lightning.data.ingest.rows import ListRow, read_rows

_NUM_SHOWN = 5
_SURROGATE = re.compile("[\ud800-\udfff]")


class Item(NamedTuple):
    """One URL of a list, with all sentences that the list has for it."""

    position: int  # among all URLs of the list, from 0
    url: str
    key: str  # the last part of the URL's path, or a hash and that part; unique in a list
    captions: tuple[str, ...]


class OddLines(NamedTuple):
    """How many lines have something odd about them, and the numbers of the first of them."""

    num_lines: int
    first: tuple[int, ...]


class ListReport(NamedTuple):
    """What a list holds, and what is odd about it, by cause.

    blank, too_long, open_quote (in CSV), not_a_url, nul, not_utf8 and duplicate (a URL once more,
    with no new sentence) give no item. A line that is extra_tabs, or whose sentence alone is nul
    or not_utf8, gives one, in the second case without the sentence.
    """

    address: str
    num_rows: int
    num_urls: int
    odd: dict[str, OddLines]
    splits: tuple["ListReport", ...] = ()
    num_outside: int = 0  # URLs of the list that are in none of the splits

    def describe(self) -> str:
        """One line: how many URLs, and the count and first line numbers of each cause."""
        parts = [f"{self.address}: {self.num_urls:,} URLs in {self.num_rows:,} rows"]
        for cause, (num_lines, first) in sorted(self.odd.items(), key=lambda odd: -odd[1][0]):
            parts.append(describe_lines(cause, num_lines, first))
        if self.splits:
            kept = self.num_urls - self.num_outside
            parts.append(f"{kept:,} in the splits " + ", ".join(s.describe() for s in self.splits))
        return "; ".join(parts)


def read_list(address: str, splits: Sequence[str] = ()) -> tuple[list[Item], ListReport]:
    """The URLs of a list, each once, in the order of their first appearance.

    Args:
        address: a path or an fsspec address. Lines of URL or URL<TAB>sentence; .csv and .parquet
            files with a column url, and possibly caption.
        splits: addresses of lists; only items in one of them are kept.
    Raises ValueError when a list cannot be read or holds no URL, or when no item is left.
    """
    captions, report = _read(address)
    names = Counter(map(_basename, captions))
    keys = {url: _key(url, names) for url in captions}
    items = [Item(i, u, keys[u], tuple(captions[u])) for i, u in enumerate(captions)]
    if splits:
        wanted, reports = zip(*map(read_split, splits), strict=True)
        items = [item for item in items if any(item.key in split for split in wanted)]
        if not items:
            raise ValueError(
                f"none of the {len(captions):,} URLs in {address} is in {', '.join(splits)}; "
                "give splits of this list"
            )
        report = report._replace(splits=reports, num_outside=len(captions) - len(items))
    return items, report


def read_split(address: str) -> tuple[frozenset[str], ListReport]:
    """The keys under which the URLs of a split can appear in a list or a store.

    TGIF's splits may name another host than its list, so they are matched by the last part of
    the path; where that is not unique in the list, by the whole URL.
    """
    captions, report = _read(address)
    return frozenset(key for url in captions for key in (_basename(url), hashed_key(url))), report


def hashed_key(url: str) -> str:
    """A key that no other URL has. A last part of a path cannot be one: it holds no slash."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}/{_basename(url)}"


def _key(url: str, names: Counter[str]) -> str:
    name = _basename(url)
    return name if name and names[name] == 1 else hashed_key(url)


def _basename(url: str) -> str:
    return posixpath.basename(urlsplit(url).path)


def _read(address: str) -> tuple[dict[str, dict[str, None]], ListReport]:
    """Sentences by URL, both in order and without repetition."""
    name = urlsplit(address).path if "://" in address else address
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    captions, report = _collect(read_rows(read_file(address), name), address)
    if not captions:
        raise ValueError(f"no URL in {report.describe()}; give lines that start with http(s)://")
    return captions, report


def _collect(
    rows: Iterable[ListRow], address: str
) -> tuple[dict[str, dict[str, None]], ListReport]:
    captions: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    first: dict[str, list[int]] = {}
    num_rows = 0
    for row in rows:
        num_rows += 1
        for cause in _take(row, captions):
            counts[cause] += 1
            if counts[cause] <= _NUM_SHOWN:
                first.setdefault(cause, []).append(row.line)
    odd = {cause: OddLines(counts[cause], tuple(first[cause])) for cause in counts}
    return captions, ListReport(address, num_rows, len(captions), odd)


def _take(row: ListRow, captions: dict[str, dict[str, None]]) -> list[str]:
    """Add a row to the captions; the causes for which it is odd."""
    causes = [row.cause] if row.cause else []
    if not row.url:
        return causes or ["blank"]
    known = row.url in captions
    cause = None if known else damage(row.url) or _not_a_url(row.url)
    if cause:
        return [*causes, cause]
    sentences = captions.setdefault(row.url, {})
    cause = damage(row.caption)
    if cause:
        return [*causes, cause]
    if known and (not row.caption or row.caption in sentences):
        return [*causes, "duplicate"]
    if row.caption:
        sentences[row.caption] = None
    return causes


def describe_lines(cause: str, num_lines: int, first: Sequence[int]) -> str:
    """Say how many lines have something odd about them, and the numbers of the first."""
    more = ", ..." if num_lines > _NUM_SHOWN else ""
    shown = ", ".join(f"{number:,}" for number in first[:_NUM_SHOWN])
    return f"{num_lines:,} {cause} (line{'s' * (num_lines > 1)} {shown}{more})"


def damage(text: str) -> str | None:
    """Return why a text cannot be kept: nul or not_utf8; None where it can."""
    if "\0" in text:
        return "nul"
    return "not_utf8" if _SURROGATE.search(text) else None


def _not_a_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        sound = sound and parts.username is None  # a password would be stored with the clips
    except ValueError:  # brackets, or a port that is no number
        sound = False
    return None if sound and text.isprintable() and " " not in text else "not_a_url"
