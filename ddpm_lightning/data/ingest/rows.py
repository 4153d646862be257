"""Rows of a list of URLs: (line, url, caption), from text lines, CSV or Parquet.

Text lines are a URL alone, or URL<TAB>sentence without a header as in TGIF. CSV and Parquet have a
column `url` (or another one that is asked for) and may have one `caption`, in any case. Nothing in
a file is fatal but a missing column: what a row suffers from is its cause. Whether a url is one, is
decided elsewhere.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ddpm_lightning.data.ingest.files import one_line, optional_module

MAX_CHARACTERS = 65_536  # of a line, or of one cell of a Parquet file
_MAX_RECORD_LINES = 16  # a quote in a CSV file that is open for longer was never meant to be one
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class ListRow(NamedTuple):
    """One row. Bytes that are not UTF-8 have become lone surrogates."""

    line: int  # in the file, from 1; in a Parquet file the row
    url: str  # stripped; empty where there is none
    caption: str = ""
    cause: str | None = None  # too_long, extra_tabs, open_quote


def read_rows(data: bytes, name: str, column: str = "url") -> Iterator[ListRow]:
    """The rows of a file, in order.

    Args:
        data: the file's bytes.
        name: its name; .csv and .parquet tell those formats.
        column: of CSV and Parquet, which becomes a row's url.
    Raises ValueError for CSV or Parquet without that column, a damaged Parquet file, or a Parquet
    file where pyarrow is missing.
    """
    suffix = name.rpartition(".")[-1].lower()
    if suffix == "parquet":
        return _parquet_rows(data, name, column)
    if suffix == "csv":
        return _csv_rows(list(_text_lines(data)), name, column)
    return _tab_rows(_text_lines(data))


def _text_lines(data: bytes) -> Iterator[str]:
    """Lines that end in \\n, whatever they ended in; without byte order marks."""
    utf16 = data.startswith(_UTF16)  # what some Windows tools write
    encoding, errors = ("utf-16", "replace") if utf16 else ("utf-8", "surrogateescape")
    # Files joined together have marks in the middle, too.
    return (line.lstrip("\ufeff") for line in io.TextIOWrapper(io.BytesIO(data), encoding, errors))


def _tab_rows(lines: Iterator[str]) -> Iterator[ListRow]:
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_CHARACTERS:
            yield ListRow(number, "", cause="too_long")
            continue
        fields = [field.strip() for field in line.split("\t")]
        url, *sentences = filter(None, fields) if any(fields) else [""]
        cause = "extra_tabs" if url and len(fields) > 2 else None
        yield ListRow(number, url, " ".join(sentences), cause)


def _csv_rows(lines: Sequence[str], name: str, column: str) -> Iterator[ListRow]:
    columns: list[str] = []
    start = 0
    while start < len(lines):
        number = start + 1
        fields, cause, start = _record(lines, start)
        if cause or not any(fields):
            yield ListRow(number, "", cause=cause)
        elif not columns:
            columns = _columns(fields, name, column)
        else:
            cells = dict(zip(columns, map(str.strip, fields), strict=False))
            yield ListRow(number, cells.get(column, ""), cells.get("caption", ""))


def _record(lines: Sequence[str], start: int) -> tuple[list[str], str | None, int]:
    """The fields of the record that starts at a line, or a cause, and where the next one starts."""
    if len(lines[start]) > MAX_CHARACTERS:
        return [], "too_long", start + 1
    window = lines[start : start + _MAX_RECORD_LINES]
    reader = csv.reader([*window, "\n"])
    try:
        fields = next(reader)
    except csv.Error:  # a field longer than the module allows, which takes a quote over many lines
        return [], "open_quote", start + 1
    # Still open, or closed by a quote of a later row: only the first line is lost.
    if reader.line_num > len(window) or any("://" in line for line in window[1 : reader.line_num]):
        return [], "open_quote", start + 1
    return fields, None, start + reader.line_num


def _columns(names: Sequence[str], file: str, column: str) -> list[str]:
    """The header in lower case."""
    columns = [name.strip().lower() for name in names]
    if column not in columns:
        raise ValueError(f"{file} has the columns {names}; one must be named {column}")
    return columns


def _parquet_rows(data: bytes, name: str, column: str) -> Iterator[ListRow]:
    arrow = optional_module("pyarrow", name, "pip install pyarrow")
    parquet = optional_module("pyarrow.parquet", name, "pip install pyarrow")
    number = 0
    try:
        file = parquet.ParquetFile(arrow.BufferReader(data))
        own_names = file.schema_arrow.names
        columns = dict(zip(_columns(own_names, name, column), own_names, strict=True))
        url_name, caption_name = columns[column], columns.get("caption")
        for batch in file.iter_batches(columns=[url_name, caption_name or url_name]):
            urls = _texts(arrow, batch[url_name])
            captions = _texts(arrow, batch[caption_name]) if caption_name else [""] * len(urls)
            for url, caption in zip(urls, captions, strict=True):
                number += 1
                if len(url) + len(caption) > MAX_CHARACTERS:
                    yield ListRow(number, "", cause="too_long")
                else:
                    yield ListRow(number, url, caption)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} is no sound Parquet file of texts: {one_line(error)}") from error


def _texts(arrow: Any, column: Any) -> list[str]:
    # Arrow hands out bytes unchecked as text, so they are decoded here.
    cells = column.cast(arrow.binary()).to_pylist()
    return [(cell or b"").decode("utf-8", "surrogateescape").strip() for cell in cells]
