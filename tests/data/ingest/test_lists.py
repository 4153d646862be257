"""Lists of URLs: every format, every odd line, every address."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lightning.data.ingest.lists import Item, OddLines, hashed_key, read_list

Write = Callable[..., str]
A, B, C = (f"https://example.com/{name}.gif" for name in "abc")
THREE = [
    Item(0, A, "a.gif", ("a cat sits", "it sleeps")),
    Item(1, B, "b.gif", ('a "big" dog, running',)),
    Item(2, C, "c.gif", ()),
]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write bytes or text to a file of some name; its path."""

    def write(data: bytes | str, name: str = "list.tsv") -> str:
        data = data.encode() if isinstance(data, str) else data
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@contextmanager
def serving(body: bytes, status: int = 200, length: int | None = None) -> Iterator[str]:
    """The address of a server on loopback that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/list.tsv?token=x.csv"
    finally:
        server.shutdown()
        server.server_close()


def parquet_bytes(table: dict[str, list[Any]]) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="needs the package pyarrow")
    file = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(arrow.table(table), file)
    return file.getvalue()


def test_every_text_format_gives_the_same_items(write: Write) -> None:
    lines = f'{A}\ta cat sits\n{B}\ta "big" dog, running\n{C}\n{A}\tit sleeps\n'
    table = (
        "id,Caption, URL \n1,a cat sits," + A + '\n2,"a ""big"" dog, running",' + B + "\n"
        f"3,,{C}\n4,it sleeps,{A}\n"
    )
    for text, name in ((lines, "a.tsv"), (lines, "a.txt"), (lines, "a"), (table, "a.CSV")):
        crlf, cr = text.replace("\n", "\r\n"), text.replace("\n", "\r")
        for data in (text, text.rstrip("\n"), crlf, cr, "\ufeff" + text, text.encode("utf-16")):
            items, report = read_list(write(data, name))
            assert items == THREE
            assert report.odd == {}


def test_plain_lines_need_no_sentence(write: Write) -> None:
    items, report = read_list(write(f"{A}\n  {B} \n{C}"))
    assert [(item.url, item.captions) for item in items] == [(A, ()), (B, ()), (C, ())]
    assert report.describe().endswith("list.tsv: 3 URLs in 3 rows")


def test_parquet_gives_the_same_items(write: Write) -> None:
    table: dict[str, list[Any]] = {
        "id": [1, 2, 3, 4],
        "Url": [A, B, C, A],
        "caption": ["a cat sits", 'a "big" dog, running', None, "it sleeps"],
    }
    items, report = read_list(write(parquet_bytes(table), "a.parquet"))
    assert (items, report.odd) == (THREE, {})
    items, report = read_list(
        write(parquet_bytes({"url": [None, "x", A, "x" * 70_000, A]}), "a.parquet")
    )
    assert items == [Item(0, A, "a.gif", ())]
    assert {cause: odd.first for cause, odd in report.odd.items()} == {
        "blank": (1,),
        "not_a_url": (2,),
        "too_long": (4,),
        "duplicate": (5,),
    }
    binary = {"url": [A.encode(), b"https://example.com/\xff.gif"]}
    items, report = read_list(write(parquet_bytes(binary), "a.parquet"))
    assert (len(items), report.odd) == (1, {"not_utf8": OddLines(1, (2,))})


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"link": [A]}, "has the columns \\['link'\\]; one must be named url"),
        ({"url": [1, 2]}, "is no sound Parquet file of texts"),
        (None, "is no sound Parquet file of texts"),
    ],
)
def test_an_unsuitable_parquet_file_is_named(
    write: Write, table: dict[str, list[Any]] | None, complaint: str
) -> None:
    pytest.importorskip("pyarrow", reason="needs the package pyarrow")
    path = write(parquet_bytes(table) if table else b"PAR1 and no more", "a.parquet")
    with pytest.raises(ValueError, match=complaint) as error:
        read_list(path)
    assert "\n" not in str(error.value)


def test_parquet_without_pyarrow_names_the_package(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"a\.parquet needs the package pyarrow; pip install"):
        read_list(write(b"PAR1", "a.parquet"))


ODD_LINES = [
    (b"", "blank"),
    (b" \t ", "blank"),
    (b"https://example.com/\0.gif\ttext", "nul"),
    (b"https://example.com/\xff.gif\ttext", "not_utf8"),
    (b"https://example.com/" + b"x" * 2**20, "too_long"),
    (A.encode(), "duplicate"),
    (A.encode() + b"\ta cat sits", "duplicate"),
    (b"# a remark", "not_a_url"),
    (b"url\tcaption", "not_a_url"),
    (b"ftp://example.com/a.gif", "not_a_url"),
    (b"http://user:word@example.com/a.gif", "not_a_url"),
    (b"file:///etc/passwd", "not_a_url"),
    (b"https:///a.gif", "not_a_url"),
    (b"https://[::1/a.gif", "not_a_url"),
    (b"https://example.com:port/a.gif", "not_a_url"),
    (b"https://example.com/a b.gif", "not_a_url"),
    (b"https://example.com/\x1b[2J.gif", "not_a_url"),
    ("https://example.com/\u202egif.exe".encode(), "not_a_url"),
]


@pytest.mark.parametrize(("line", "cause"), ODD_LINES)
def test_an_odd_line_costs_itself_alone_and_is_reported(
    write: Write, line: bytes, cause: str
) -> None:
    good = [A.encode() + b"\ta cat sits", B.encode(), C.encode()]
    items, report = read_list(write(b"\n".join([*good[:2], line, good[2]])))
    assert [item.url for item in items] == [A, B, C]
    assert report.odd == {cause: OddLines(1, (3,))}
    assert report.describe().endswith(f"3 URLs in 4 rows; 1 {cause} (line 3)")


@pytest.mark.parametrize(
    ("line", "captions", "cause"),
    [
        (f"{B}\ta dog\truns".encode(), ("a dog runs",), "extra_tabs"),
        (f"\t\t{B}\t\ta dog\t".encode(), ("a dog",), "extra_tabs"),
        (f"{B}\ta d\0g".encode(), (), "nul"),
        (f"{B}\tun café".encode("latin-1"), (), "not_utf8"),
    ],
)
def test_a_line_with_a_sound_url_keeps_it(
    write: Write, line: bytes, captions: tuple[str, ...], cause: str
) -> None:
    items, report = read_list(write(A.encode() + b"\n" + line + b"\n" + C.encode()))
    assert items[1] == Item(1, B, "b.gif", captions)
    assert report.odd == {cause: OddLines(1, (2,))}


def test_the_report_counts_all_odd_lines_and_names_the_first_five(write: Write) -> None:
    _, report = read_list(write(f"{A}\n" + "\n" * 1_234 + f"{A}\n"))
    assert report.odd == {
        "blank": OddLines(1_234, (2, 3, 4, 5, 6)),
        "duplicate": OddLines(1, (1_236,)),
    }
    assert report.describe().endswith(
        "1 URLs in 1,236 rows; 1,234 blank (lines 2, 3, 4, 5, 6, ...); 1 duplicate (line 1,236)"
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists") / "list.txt"


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(lines=st.lists(st.one_of(st.none(), st.binary(max_size=80)), max_size=30))
def test_no_bytes_between_good_lines_hide_one(path: Path, lines: list[bytes | None]) -> None:
    """None stands for a good line, anything else for a line of arbitrary bytes."""
    good = [f"https://good.example/{i}.gif".encode() for i in range(lines.count(None) + 1)]
    left = iter(good[1:])
    data = b"\n".join([good[0], *(next(left) if line is None else line for line in lines)])
    path.write_bytes(data)
    items, report = read_list(str(path))
    found = [item.url.encode() for item in items]
    assert [url for url in found if url.startswith(b"https://good.")] == good
    assert sum(odd.num_lines for odd in report.odd.values()) + len(items) >= report.num_rows


def test_csv_keeps_line_breaks_in_quotes_and_loses_no_record_after_an_open_quote(
    write: Write,
) -> None:
    table = f'url,caption\n{A},"two\nlines"\n\n{B},"never closed\n{C},5" high\nx,"open\n'
    items, report = read_list(write(table + "x,\n" * 20 + f"{A}d,\n", "a.csv"))
    assert [(item.url, item.captions) for item in items] == [
        (A, ("two\nlines",)),
        (C, ('5" high',)),
        (f"{A}d", ()),
    ]
    assert report.odd == {
        "blank": OddLines(1, (4,)),
        "open_quote": OddLines(2, (5, 7)),
        "not_a_url": OddLines(20, (8, 9, 10, 11, 12)),
    }


def test_csv_survives_odd_records(write: Write) -> None:
    records = [
        b"url,caption",
        A.encode() + b',"ends in a line break\n"',
        b"https://example.com/" + b"x" * 2**20,
        b'"' + b"x" * 60_000 + b"\n" + (b"y" * 60_000 + b"\n") * 3,
        b"\0,nul",
        B.encode() + b",\xff",
        C.encode() + b',more,cells,than columns\n"',
    ]
    items, report = read_list(write(b"\n".join(records), "a.csv"))
    assert [item.url for item in items] == [A, B, C]
    assert items[0].captions == ("ends in a line break",)
    assert {cause: odd.first for cause, odd in report.odd.items()} == {
        "too_long": (4,),
        "open_quote": (5, 13),
        "not_a_url": (6, 7, 8),
        "blank": (9,),
        "nul": (10,),
        "not_utf8": (11,),
    }


@pytest.mark.parametrize("header", ["link,caption", "", A])
def test_csv_without_a_url_column_is_refused(write: Write, header: str) -> None:
    with pytest.raises(ValueError, match=r"a\.csv (has the columns|: 0 URLs|holds no)"):
        read_list(write(f"{header}\n{A},text\n", "a.csv"))


def test_keys_are_unique_whatever_the_list_says(write: Write) -> None:
    same = [f"https://example.com/{i}/giphy.gif" for i in range(3)]
    hostile = f"https://example.com/{hashed_key(same[0]).replace('/', '%2F')}"
    others = [hostile, "https://example.com", "https://example.org/", A, f"{A}?size=2"]
    items, _ = read_list(write("\n".join(same + others)))
    assert len({item.key for item in items}) == len(items) == 8
    assert all(item.key.endswith("/giphy.gif") for item in items[:3])


def test_keys_and_positions_follow_the_list_and_not_its_splits(write: Write) -> None:
    urls = [f"https://example.com/{i}/giphy.gif" for i in range(3)] + [A, B]
    path = write("\n".join(urls))
    split = write(f"{urls[1]}\nhttps://elsewhere.example/b.gif\n", "split.txt")
    items, report = read_list(path, [split])
    assert items == [
        Item(1, urls[1], hashed_key(urls[1]), ()),
        Item(4, B, "b.gif", ()),
    ]
    assert f"5 rows; 2 in the splits {split}: 2 URLs in 2 rows" in report.describe()


def test_a_list_is_read_from_any_address(write: Write) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra tgif")
    text = f"{A}\ta cat sits\n"
    with fsspec.open("memory://lists/a.tsv", "wb") as file:
        file.write(text.encode())
    expected = [Item(0, A, "a.gif", ("a cat sits",))]
    for address in ("memory://lists/a.tsv", f"file://{write(text)}", write(text)):
        assert read_list(address)[0] == expected


@pytest.mark.slow
def test_a_list_is_read_over_http_to_its_end(write: Write) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra tgif")
    urls = [f"https://example.com/{i}.gif?{'x' * 10_000}" for i in range(600)]
    body = "\n".join(urls).encode()  # more than the 5 MiB that fsspec asks for at a time
    with serving(body) as address:
        assert [item.url for item in read_list(address)[0]] == urls
    cut = serving(body, length=len(body) + 1)
    with cut as address, pytest.raises(ValueError, match="cannot be read: ContentLengthError"):
        read_list(address)
    with serving(b"gone", status=404) as address, pytest.raises(ValueError, match="not exist"):
        read_list(address)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("{}/none.tsv", "none.tsv does not exist; give a path or an address"),
        ("file://{}/none.tsv", "none.tsv does not exist"),
        ("memory://none.tsv", "none.tsv does not exist"),
        ("{}", "cannot be read: IsADirectoryError"),
        ("nothing://{}", "cannot be read: ValueError: Protocol not known: nothing"),
        ("http://127.0.0.1:1/a.tsv", "cannot be read: ClientConnectorError: Cannot connect"),
    ],
)
def test_an_address_that_cannot_be_read_is_one_line(
    tmp_path: Path, address: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        read_list(address.format(tmp_path))
    assert "\n" not in str(error.value)


def test_an_endless_list_is_refused_when_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_lightning.data.ingest.files._MAX_BYTES", 2**21)
    with pytest.raises(ValueError, match="/dev/zero has more than 2,097,152 bytes; split it"):
        read_list("/dev/zero")


def test_a_list_without_a_url_says_what_it_holds(write: Write) -> None:
    with pytest.raises(ValueError, match=r"no URL in .*: 0 URLs in 2 rows; 1 not_a_url \(line 1\)"):
        read_list(write("<html>\n\n"))
    with pytest.raises(ValueError, match=r"no URL in .*: 0 URLs in 0 rows; give lines that start"):
        read_list(write(""))
    with pytest.raises(ValueError, match=r"none of the 1 URLs in .* is in .*split; give splits"):
        read_list(write(A), [write(B, "split")])


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_only_addresses_need_the_extra(write: Write, missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from ddpm_lightning.data.ingest.lists import read_list\n"
        f"assert len(read_list({write(A)!r})[0]) == 1\n"
        "try: read_list('http://127.0.0.1:1/a.tsv')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert missing in line
    assert line.endswith("; pip install ddpm_lightning[tgif]")


@pytest.mark.long
def test_a_list_as_long_as_tgif_takes_little_memory(write: Write) -> None:
    lines = (
        f"https://{i % 40}.media.example.com/{i:032x}/tumblr_{i}.gif\ta man in a hat looks at {i}\n"
        for i in range(120_000)
    )
    code = (
        "from tests.commands import most_resident\n"
        "from ddpm_lightning.data.ingest.lists import read_list\n"
        "before = most_resident()\n"
        f"assert len(read_list({write(''.join(lines))!r})[0]) == 120_000\n"
        "print(most_resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * 1024  # KiB
