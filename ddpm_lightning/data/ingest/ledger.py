"""The ledger of an ingest: one row a URL, with what became of it.

An SQLite file, the single source of truth for continuing: whatever was recorded before a process
was killed is still there afterwards, and nothing half. It knows nothing of HTTP, GIFs or shards.

    new -> decoded -> stored        new -> failed        failed (transient) -> new, by retry
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from ddpm_lightning.data.ingest.lists import Item, hashed_key
from ddpm_lightning.files.lock import ProcessLock

State = Literal["new", "decoded", "stored", "failed"]

_VERSION = 1
_SCHEMA = """
    CREATE TABLE urls (
        position INTEGER PRIMARY KEY,
        url TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL UNIQUE,
        captions TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'new',
        cause TEXT,
        transient INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0,
        num_bytes INTEGER NOT NULL DEFAULT 0,
        sha256 TEXT,
        detail TEXT NOT NULL DEFAULT '',
        "when" REAL
    );
    CREATE INDEX by_cause ON urls (state, cause);
"""
_PAGE_ROWS = 500
_MAX_DETAIL = 300


class LedgerRow(NamedTuple):
    """One URL. Its fields are the columns of the table."""

    position: int
    url: str
    key: str
    captions: tuple[str, ...]
    state: State
    cause: str | None  # of a failure
    transient: bool  # whether retry may try it again
    tries: int  # requests sent, in all runs together
    num_bytes: int  # of the last answer
    sha256: str | None  # of the GIF
    detail: str  # of a failure, for people
    when: float | None  # it was last recorded, in seconds since 1970


class Ledger:
    """A ledger file, opened by one process at a time.

    Every change is on its own and at once safe from the end of the process; the last few may be
    lost when the machine itself loses power. Not to be carried into a forked process.

    Args:
        path: made if it is missing, with its folder.
        wait: wait for another writer to end instead of raising ValueError, which names it.
    Raises ValueError when the file is damaged, OSError in one line when the disk refuses; so does
    every method.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = ProcessLock(self.path.with_name(f"{self.path.name}.lock"), wait=wait)
        with self._one_line():
            self._db = sqlite3.connect(self.path, isolation_level=None)
        try:
            with self._one_line():
                self._set_up()
        except BaseException:
            self.close()
            raise

    def add(self, items: Iterable[Item]) -> None:
        """Take up the items whose URLs are not there yet, all or none of them.

        A row gets the captions of the last list, but never changes its position or key, whatever
        that says: a new item whose position is not beyond those of all rows comes after them, and
        one whose key is taken gets lists.hashed_key. Rows are what counts, then, not items.
        """
        with self._transaction():
            end = self._value("SELECT COALESCE(MAX(position), -1) + 1 FROM urls")
            for item in items:
                captions = json.dumps(item.captions, ensure_ascii=False)
                known = "UPDATE urls SET captions = ? WHERE url = ?"
                if self._db.execute(known, (captions, item.url)).rowcount:
                    continue
                taken = self._value("SELECT COUNT(*) FROM urls WHERE key = ?", item.key)
                position = max(item.position, end)
                self._db.execute(
                    "INSERT INTO urls (position, url, key, captions) VALUES (?, ?, ?, ?)",
                    (
                        position,
                        item.url,
                        hashed_key(item.url) if taken else item.key,
                        captions,
                    ),
                )
                end = position + 1

    def rows(
        self, state: State | None = None, *, start: int = 0, stop: int | None = None
    ) -> Iterator[LedgerRow]:
        """Rows in the order of positions, start <= position < stop, of one state or of all.

        A few hundred are in memory at a time. Rows may be recorded meanwhile; those not yet
        reached are seen as they are by then.
        """
        # The unary plus keeps SQLite from the index on states, for which it would have to sort.
        query = (
            "SELECT * FROM urls WHERE position >= ? AND position < ? AND (? IS NULL OR +state = ?) "
            f"ORDER BY position LIMIT {_PAGE_ROWS}"
        )
        end = 2**63 - 1 if stop is None else stop
        while True:
            with self._one_line():
                page = self._db.execute(query, (start, end, state, state)).fetchall()
            for position, url, key, captions, now, cause, transient, *others in page:
                texts = tuple(json.loads(captions))
                yield LedgerRow(position, url, key, texts, now, cause, bool(transient), *others)
            if len(page) < _PAGE_ROWS:
                return
            start = page[-1][0] + 1

    def record(
        self,
        url: str,
        state: State,
        *,
        cause: str | None = None,
        transient: bool = False,
        tries: int = 0,
        num_bytes: int | None = None,
        sha256: str | None = None,
        detail: str = "",
    ) -> None:
        """What became of one URL.

        Args:
            cause, transient, detail: of a failure, and only of one.
            tries: requests sent since the last record.
            num_bytes, sha256: None leaves what is known.
        """
        assert (state == "failed") == (cause is not None)
        text = detail[:_MAX_DETAIL].encode(errors="replace").decode()  # servers write into it
        with self._one_line():
            changed = self._db.execute(
                "UPDATE urls SET state = ?, cause = ?, transient = ?, tries = tries + ?, "
                "num_bytes = COALESCE(?, num_bytes), sha256 = COALESCE(?, sha256), detail = ?, "
                '"when" = ? WHERE url = ?',
                (state, cause, transient, tries, num_bytes, sha256, text, time.time(), url),
            ).rowcount
        assert changed == 1, url

    def mark(self, urls: Iterable[str], state: State) -> None:
        """Record a state of several URLs, all or none of them: a block that is stored, or lost."""
        with self._transaction():
            for url in urls:
                self.record(url, state)

    def retry(self, which: str) -> None:
        """Make failed URLs new again.

        Args:
            which: "transient": those whose cause may be gone by now; "none". There is nothing for
                the permanent ones (404, 410, 403, not a GIF): they are never fetched twice.
        """
        if which == "none":
            return
        if which != "transient":
            raise ValueError(f"retry must be none or transient, got {which}")
        with self._one_line():
            self._db.execute(
                "UPDATE urls SET state = 'new', cause = NULL, transient = 0, detail = '' "
                "WHERE state = 'failed' AND transient"
            )

    def counts(self) -> Counter[tuple[State, str | None]]:
        """How many URLs are in each state, failures by cause."""
        with self._one_line():
            groups = "SELECT state, cause, COUNT(*) FROM urls GROUP BY state, cause"
            return Counter({(state, cause): n for state, cause, n in self._db.execute(groups)})

    def close(self) -> None:
        self._db.close()
        self._lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _set_up(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # Commits do not wait for the disk, only for the kernel: what is lost when a machine stops
        # is fetched again.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        (check,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if check != "ok":
            raise sqlite3.DatabaseError(" ".join(check.split()))

    def _value(self, query: str, *parameters: str) -> int:
        with self._one_line():
            (value,) = self._db.execute(query, parameters).fetchone()
        return int(value)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._one_line(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(
                f"cannot use {self.path}: {error}; free some space (a ledger takes about 1 KB a "
                "URL) or choose another folder"
            ) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # its subclasses are our own mistakes
                raise
            raise ValueError(
                f"{self.path} is damaged ({error}); delete it and ingest again"
            ) from error
