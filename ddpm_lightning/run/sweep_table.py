"""What became of a sweep's jobs: as Markdown, CSV, and a page with their curves and samples."""

import csv
import html
import io
import json
from os.path import relpath
from pathlib import Path
from typing import NamedTuple

from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.directory import status_of, write_text

CONSOLE = "console.log"
_METRIC = "val/loss"
_COLUMNS = ("job", "overrides", "status", f"best {_METRIC}", "seconds", "run")
_STYLE = (
    "body{font:14px sans-serif;margin:2em} table{border-collapse:collapse} "
    "td,th{border:1px solid #ccc;padding:6px;text-align:left;vertical-align:top} "
    "img{max-width:360px;image-rendering:pixelated} img.grid{height:240px}"
)


class Row(NamedTuple):
    """A job: its number, the words that tell it from the others, its run, and what came of it."""

    number: int
    words: list[str]
    path: Path
    status: str
    best: float | None
    seconds: float | None
    cause: str | None

    @property
    def label(self) -> str:
        return f"job {self.number} ({' '.join(self.words) or 'as it is'})"

    @property
    def outcome(self) -> str:
        told = f", {_METRIC} {self.best:.4g}" if self.best is not None else ""
        return f"{self.label}: {self.status}{told}{f': {self.cause}' if self.cause else ''}"

    def cells(self, folder: Path) -> list[str]:
        best = "" if self.best is None else f"{self.best:.6g}"
        seconds = "" if self.seconds is None else f"{self.seconds:g}"
        status = f"{self.status}: {self.cause}" if self.cause else self.status
        run = relpath(self.path, folder)
        return [str(self.number), " ".join(self.words), status, best, seconds, run]


class Tables(NamedTuple):
    """The page's place, and the Markdown to print."""

    page: Path
    text: str


def row_of(number: int, words: list[str], path: Path) -> Row:
    """From what the run has written; the cause of a failure is its last line."""
    status = status_of(path) or "waiting"
    best = seconds = cause = None
    if (path / "metrics.csv").is_file():
        _, values = read_metrics(path / "metrics.csv").get(_METRIC, ([], []))
        best = min(values, default=None)
    if (path / "status.json").is_file():
        seconds = json.loads((path / "status.json").read_text())["seconds"]
    console = path / CONSOLE
    if status != "finished" and console.is_file():
        lines = console.read_text(errors="replace").strip().splitlines()
        cause = lines[-1] if lines else None
        status = "failed" if status in ("waiting", "running") else status
    return Row(number, words, path, status, best, seconds, cause)


def write_tables(directory: Path, rows: list[Row]) -> Tables:
    """sweep.md, sweep.csv and sweep.html, which show the same."""
    cells = [row.cells(directory) for row in rows]
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *cells]
    text = "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )
    write_text(directory / "sweep.md", text + "\n")
    table = io.StringIO()
    csv.writer(table).writerows([_COLUMNS, *cells])
    write_text(directory / "sweep.csv", table.getvalue())
    write_text(directory / "sweep.html", _page(directory, rows))
    return Tables(directory / "sweep.html", text)


def _page(directory: Path, rows: list[Row]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*_COLUMNS, "curves", "samples"))
    body = []
    for row in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells(directory))
        run = relpath(row.path, directory)
        for name, kind in (("curves.png", "curves"), ("samples/final.gif", "grid")):
            source = html.escape(f"{run}/{name}", quote=True)
            shown = f'<img class="{kind}" src="{source}">' if (row.path / name).exists() else ""
            cells += f"<td>{shown}</td>"
        body.append(f"<tr>{cells}</tr>")
    title = html.escape(f"sweep {directory.name}")
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><table><tr>{head}</tr>{''.join(body)}</table>\n"
    )
