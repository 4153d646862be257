"""What became of the jobs of a sweep: a table as Markdown, as CSV and as a page to look at."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm_lightning.plots.curves import read_metrics, smooth, tell_empty

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin-top: 2rem }
code { font-size: .85rem; overflow-wrap: anywhere }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr.best { font-weight: 600 }
.failed { color: #a00 }
.jobs { display: flex; flex-wrap: wrap; gap: 1.2rem } .jobs div { max-width: 18rem }
.jobs img { width: 100%; min-width: 14rem; image-rendering: pixelated; background: #eee }
.jobs p { margin: .2rem 0; font-size: .85rem; overflow-wrap: anywhere }
"""


class Row(NamedTuple):
    """One job. metric: its least value, None where there is none. path: below the sweep's."""

    number: int
    words: str
    status: str
    error: str
    metric: float | None
    seconds: float | None
    path: str


def best(rows: Sequence[Row]) -> Row | None:
    """The row of the least metric."""
    measured = [row for row in rows if row.metric is not None]
    return min(measured, key=lambda row: row.metric or 0.0, default=None)


def as_markdown(rows: Sequence[Row], metric: str) -> str:
    """A table, the best value in bold."""
    head = ["job", "overrides", "status", f"best {metric}", "time", "path"]
    winner = best(rows)
    body = []
    for row in rows:
        cells = _cells(row)
        if row == winner:
            cells[3] = f"**{cells[3]}**"
        if row.error:
            cells[2] += f": {row.error}"
        body.append([cell.replace("|", "\\|") for cell in cells])
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(rows: Sequence[Row], metric: str) -> str:
    """The same in full precision."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["job", "overrides", "status", "error", f"best {metric}", "seconds", "path"])
    writer.writerows(["" if value is None else value for value in (r.number, *r[1:])] for r in rows)
    return file.getvalue()


def as_html(rows: Sequence[Row], metric: str, directory: Path, title: str) -> str:
    """One file: the table, all curves in one picture, and each job's samples beside the others'."""
    winner = best(rows)
    lines = []
    for row in rows:
        number, words, status, value, time, path = map(html.escape, _cells(row))
        kind = " class='best'" if row == winner else ""
        told = f" <span class='failed'>{html.escape(row.error)}</span>" if row.error else ""
        lines.append(
            f"<tr{kind}><td class='number'>{number}</td><td><code>{words}</code></td>"
            f"<td>{status}{told}</td><td class='number'>{value}</td><td class='number'>{time}</td>"
            f"<td><a href='{path}/'>{path}</a></td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>" for name in ("", "overrides", "status", f"best {metric}", "time", "run")
    )
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>A sweep of {len(rows)} jobs</h1>",
        f"<p><code>python train.py -m {html.escape(title)}</code></p>",
        f"<table><tr>{head}</tr>{''.join(lines)}</table>",
        _curves(rows, metric, directory),
        "<h2>Samples</h2><div class='jobs'>",
        *(_samples(row, directory) for row in rows),
        "</div></html>",
    ]
    return "\n".join(parts)


def _cells(row: Row) -> list[str]:
    metric = "" if row.metric is None else f"{row.metric:.5g}"
    time = "" if row.seconds is None else f"{row.seconds / 60:.1f} min"
    return [str(row.number), row.words, row.status, metric, time, row.path]


def _curves(rows: Sequence[Row], metric: str, directory: Path) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for row in rows:
        file = directory / row.path / "metrics.csv"
        series = read_metrics(file) if file.is_file() else {}
        label = f"{row.number} {row.words}"[:60]
        for axis, name in zip(axes, ("train/loss", metric), strict=True):
            if name in series:
                steps, values = series[name]
                shown = smooth(values) if name == "train/loss" else values
                axis.plot(steps, shown, label=label, marker="." if len(steps) < 30 else None)
    if not axes[1].lines and not axes[0].lines:
        return ""
    for axis, name in zip(axes, ("train/loss", metric), strict=True):
        axis.set(title=name, xlabel="step", yscale="log")
    axes[0].legend(fontsize="small")
    tell_empty(axes)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return f"<h2>Curves</h2><img alt='loss curves' src='{_embedded(picture.getvalue(), 'png')}'>"


def _samples(row: Row, directory: Path) -> str:
    samples = directory / row.path / "samples"
    files = [*sorted(samples.glob("step_*.gif")), *samples.glob("final.gif")]
    if not files:
        return ""
    picture = _embedded(files[-1].read_bytes(), "gif")
    label = html.escape(f"{row.number} {row.words}")
    return f"<div><img src='{picture}' alt='{label}'><p>{label}</p></div>"


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
