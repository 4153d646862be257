"""The ledger: what is recorded stays, nothing is done twice, and it takes little memory."""

import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm_lightning.data.ingest.ledger import Ledger, LedgerRow
from ddpm_lightning.data.ingest.lists import Item, hashed_key, read_list
from tests.data.ingest.ledger_writer import items, main, outcome

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part" / "ledger.db"


def fill(ledger: Ledger, num_urls: int) -> None:
    ledger.add(items(num_urls))
    for item in items(num_urls):
        ledger.record(item.url, tries=1, **outcome(item.position))


def contents(path: Path) -> list[LedgerRow]:
    """All rows but for their times."""
    with Ledger(path) as ledger:
        return [row._replace(when=None) for row in ledger.rows()]


def urls(num_urls: int) -> list[str]:
    return [item.url for item in items(num_urls)]


def test_a_row_holds_what_became_of_its_url(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(items(3))
        before = time.time()
        ledger.record(items(3)[1].url, "decoded", tries=2, num_bytes=7, sha256="ab")
        new, decoded, _ = ledger.rows()
    assert new == (*items(1)[0], "new", None, False, 0, 0, None, "", None)
    expected = (*items(2)[1], "decoded", None, False, 2, 7, "ab", "", None)
    assert decoded._replace(when=None) == expected
    assert decoded.when is not None
    assert before <= decoded.when <= time.time()


@pytest.mark.slow
def test_the_whole_tgif_list_survives_closing(path: Path, shared: Path) -> None:
    listed, _ = read_list(str(shared / "tgif" / "tgif-v1.0-partial.tsv"))
    with Ledger(path) as ledger:
        ledger.add(listed)
        ledger.add(listed)
        assert ledger.counts().total() == len(listed) == 6_737
    assert [row[:4] for row in contents(path)] == listed


def test_states_lead_from_new_to_stored(path: Path) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 10)
        assert ledger.counts() == {
            ("decoded", None): 2,
            ("failed", "http_404"): 4,
            ("failed", "http_503"): 4,
        }
        ledger.mark([row.url for row in ledger.rows("decoded")], "stored")
        assert ledger.counts()["stored", None] == 2
        assert [row.sha256 for row in ledger.rows("stored")] == [f"{i:064x}" for i in (0, 5)]
        ledger.mark(urls(1), "new")  # its shard was damaged
        assert [(row.position, row.num_bytes) for row in ledger.rows("new")] == [(0, 1000)]


def test_retry_takes_transient_failures_only_and_keeps_count_of_tries(path: Path) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 10)
        permanent = [row for row in ledger.rows("failed") if not row.transient]
        ledger.retry("none")
        assert ledger.counts()["new", None] == 0
        ledger.retry("transient")
        assert ledger.counts()["new", None] == 4
        ledger.retry("transient")
        assert [row.position for row in ledger.rows("new")] == [2, 4, 6, 8]
        assert {(row.cause, row.detail, row.tries) for row in ledger.rows("new")} == {(None, "", 1)}
        ledger.record(urls(3)[2], "failed", cause="http_410", tries=3)
        ledger.retry("transient")
        assert [row.tries for row in ledger.rows(start=2, stop=3)] == [4]
        assert list(ledger.rows("failed")) == sorted(
            [*permanent, *ledger.rows("failed", start=2, stop=3)]
        )
        with pytest.raises(ValueError, match="retry must be none or transient, got all"):
            ledger.retry("all")


def test_rows_come_in_order_while_they_are_recorded(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(items(1_234))
        for row in ledger.rows("new"):
            ledger.record(row.url, **outcome(row.position))
        assert [row.position for row in ledger.rows()] == list(range(1_234))
        assert [row.position for row in ledger.rows("decoded", start=501, stop=1_001)] == list(
            range(505, 1_001, 5)
        )
        assert list(ledger.rows("new")) == []


def test_a_longer_list_appends(path: Path) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 4)
        before = list(ledger.rows())
        ledger.add(items(6))
        assert list(ledger.rows(stop=4)) == before
        assert [row.position for row in ledger.rows("new")] == [4, 5]


def test_a_part_keeps_the_positions_of_the_whole_list(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(items(20)[3::7])
        assert [row.position for row in ledger.rows()] == [3, 10, 17]


def test_another_list_changes_no_row_but_for_its_captions(path: Path) -> None:
    a = Item(0, "https://example.com/1/a.gif", "a.gif", ())
    same_key = Item(0, "https://example.com/2/a.gif", "a.gif", ("new",))
    again = Item(1, a.url, "a.gif", ("other",))
    with Ledger(path) as ledger:
        ledger.add([a])
        ledger.add([same_key, again])
        assert [row[:4] for row in ledger.rows()] == [
            (0, a.url, "a.gif", ("other",)),
            (1, same_key.url, hashed_key(same_key.url), ("new",)),
        ]


def test_an_add_that_fails_adds_nothing(path: Path) -> None:
    def broken() -> Iterator[Item]:
        yield from items(2_000)
        raise RuntimeError("the list ends in an error")

    with Ledger(path) as ledger:
        with pytest.raises(RuntimeError):
            ledger.add(broken())
        assert ledger.counts() == Counter()
        ledger.add(items(2))
        assert ledger.counts().total() == 2


def test_a_mark_is_whole_or_absent(path: Path) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 10)
        before = list(ledger.rows())
        with pytest.raises(AssertionError):
            ledger.mark([*urls(2), "https://example.com/unknown.gif"], "stored")
        assert list(ledger.rows()) == before


@pytest.mark.parametrize("detail", ["\0\ud800\udcff", "x" * 10**6, "'); DROP TABLE urls; --\n"])
def test_nothing_that_a_server_says_hurts_the_ledger(path: Path, detail: str) -> None:
    with Ledger(path) as ledger:
        ledger.add(items(1))
        ledger.record(urls(1)[0], "failed", cause="http_404", detail=detail)
        (row,) = ledger.rows("failed")
        assert len(row.detail) <= 300


def start(path: Path, num_urls: int) -> subprocess.Popen[str]:
    """Another process that writes a ledger."""
    command = [sys.executable, "-m", "tests.data.ingest.ledger_writer", str(path), str(num_urls)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    # A page: however slowly it is read, the process is at most a thousand rows ahead.
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    return process


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)


def kill(process: subprocess.Popen[str]) -> list[int]:
    """kill -9; the positions that the process had reported."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    *lines, _ = process.stdout.read().split("\n")  # the last line may be cut
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [int(line) for line in lines if line != "ready"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_kill_9_loses_nothing_recorded_and_repeats_nothing(
    path: Path, tmp_path: Path, seed: int
) -> None:
    num_urls, num_kills = (5_000, 3) if seed == 0 else (75_000, 50)
    generator = random.Random(seed)
    reported = []
    for _ in range(num_kills):
        process = start(path, num_urls)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        reported += [int(process.stdout.readline()) for _ in range(generator.randrange(500))]
        time.sleep(generator.uniform(0, 0.001))
        reported += kill(process)
        with Ledger(path) as ledger:  # at once: the lock went with the process
            done = [row.position for row in ledger.rows() if row.state != "new"]
        assert done == list(range(len(done)))
        # One more may have been recorded at each kill, and not reported.
        assert reported == sorted(set(reported))
        assert len(reported) <= len(done) <= len(reported) + num_kills
        assert set(reported) <= set(done)
    assert 0 < len(done) < num_urls
    main(path, num_urls)
    main(tmp_path / "undisturbed.db", num_urls)
    assert contents(path) == contents(tmp_path / "undisturbed.db")
    assert {row.tries for row in contents(path)} == {1}


@pytest.mark.long
def test_kill_9_while_rows_are_added_leaves_all_or_none(tmp_path: Path) -> None:
    generator = random.Random(0)
    for i in range(5):
        path = tmp_path / f"{i}.db"
        process = start(path, 10_000)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.5))
        kill(process)
        with Ledger(path) as ledger:
            assert ledger.counts().total() in (0, 10_000)
            ledger.add(items(10_000))
            assert ledger.counts().total() == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"not a ledger\n" * 500, "zeroed"])
def test_a_damaged_ledger_is_named_in_one_line(path: Path, content: bytes | str) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 1_000)
    if content == "zeroed":
        data = bytearray(path.read_bytes())
        data[8_192:] = bytes(len(data) - 8_192)
        path.write_bytes(data)
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ledger\.db is damaged.*delete") as e:
        Ledger(path)
    assert "\n" not in str(e.value)
    path.unlink()
    with Ledger(path) as ledger:  # nothing of the failed attempt is left, such as a lock
        pass
    with pytest.raises(sqlite3.ProgrammingError):  # a mistake of ours is not called damage
        ledger.counts()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_ledger_continues_with_more_room(path: Path) -> None:
    with Ledger(path) as ledger:
        fill(ledger, 100)
    before = contents(path)
    code = (
        "import resource\n"
        "from tests.data.ingest.test_ledger import *\n"
        f"with Ledger(Path({str(path)!r})) as ledger:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "    for write in (\n"
        "        lambda: ledger.add(items(3_000)),\n"
        "        lambda: [ledger.record(url, 'decoded') for url in 20 * urls(100)],\n"
        "    ):\n"
        "        try:\n"
        "            write()\n"
        "        except OSError as error:\n"
        "            print(error)\n"
    )
    done = run(code)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"cannot use {path}: ")
        assert line.endswith("(a ledger takes about 1 KB a URL) or choose another folder")
    assert [row[:4] for row in contents(path)] == [row[:4] for row in before]
    with Ledger(path) as ledger:
        ledger.add(items(3_000))
        assert ledger.counts().total() == 3_000


@pytest.fixture
def folder_of_others() -> Iterator[Path]:
    """A folder in which this process may read and not write, even when root runs the tests."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        if root:
            os.seteuid(65_534)
        yield folder
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_read_only_folder_is_one_line(folder_of_others: Path) -> None:
    with pytest.raises(PermissionError, match=r"Permission denied: '.*ledger\.db\.lock'"):
        Ledger(folder_of_others / "ledger.db")
    with pytest.raises(PermissionError, match=r"Permission denied: '.*part'"):
        Ledger(folder_of_others / "part" / "ledger.db")


@pytest.mark.long
@pytest.mark.parametrize(
    "num_urls",
    [pytest.param(20_000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.long)],
)
def test_memory_does_not_grow_with_the_ledger(path: Path, num_urls: int) -> None:
    code = (
        "from pathlib import Path; from tests.commands import most_resident\n"
        "from tests.data.ingest.ledger_writer import *\n"
        f"listed = items({num_urls})\n"
        "before = most_resident()\n"
        f"with Ledger(Path({str(path)!r})) as ledger:\n"
        "    ledger.add(listed)\n"
        "    for row in ledger.rows('new'): ledger.record(row.url, **outcome(row.position))\n"
        "    assert ledger.counts().total() == len(listed)\n"
        "print(most_resident() - before)\n"
    )
    assert int(run(code).stdout) < 20 * 1024  # KiB: pages of SQLite, and of rows
