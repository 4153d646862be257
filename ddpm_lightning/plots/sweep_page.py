"""What became of the jobs of a sweep: a table as Markdown, as CSV and as a page to look at."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm_lightning.plots.curves import label_plainly, mark_empty, read_metrics, scale_of, smooth

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 1136px; color: #222 }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin-top: 2rem }
code { font-size: .85rem; overflow-wrap: anywhere }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr.best { font-weight: 600 }
.failed { color: #a00 }
.jobs { display: flex; flex-wrap: wrap; gap: 1.2rem } .jobs div { max-width: 18rem }
img { max-width: 100% }
.jobs img { width: 100%; min-width: 14rem; image-rendering: pixelated; background: #eee }
.jobs p { margin: .2rem 0; font-size: .85rem; overflow-wrap: anywhere }
"""


class Row(NamedTuple):
    """One job.

    value, standard_error: of the metric at its best step, None where there are none.
    is_best: whether the others are compared with it and lose.   path: below the sweep's.
    """

    number: int
    words: str
    status: str
    error: str
    value: float | None
    standard_error: float | None
    is_best: bool
    seconds: float | None
    path: str


def as_markdown(rows: Sequence[Row], metric: str, note: str) -> str:
    """Return a table, the best value in bold, and below it what must be known of the values."""
    head = ["job", "overrides", "status", f"best {metric}", "time", "path"]
    body = []
    for row in rows:
        cells = _cells(row)
        if row.is_best:
            cells[3] = f"**{cells[3]}**"
        if row.error:
            cells[2] += f": {row.error}"
        body.append([cell.replace("|", "\\|") for cell in cells])
    lines = [head, ["---"] * len(head), *body]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{note}\n" if note else table


def as_csv(rows: Sequence[Row], metric: str) -> str:
    """Return the table in full precision."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    columns = [f"best {metric}", "standard error", "is best", "seconds", "path"]
    writer.writerow(["job", "overrides", "status", "error", *columns])
    writer.writerows(["" if value is None else value for value in (r.number, *r[1:])] for r in rows)
    return file.getvalue()


def as_html(
    rows: Sequence[Row],
    metric: str,
    note: str,
    curves: Sequence[str],
    directory: Path,
    title: str,
) -> str:
    """Return one file: the table, curves of all jobs in one picture, and samples of every job.

    Args:
        note: what must be known of the values.
        curves: metrics that have one meaning in all jobs, and so one axis.
    """
    lines = []
    for row in rows:
        number, words, status, value, time, path = map(html.escape, _cells(row))
        kind = " class='best'" if row.is_best else ""
        error = f" <span class='failed'>{html.escape(row.error)}</span>" if row.error else ""
        lines.append(
            f"<tr{kind}><td class='number'>{number}</td><td><code>{words}</code></td>"
            f"<td>{status}{error}</td><td class='number'>{value}</td><td class='number'>{time}</td>"
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
        f"<p>{html.escape(note)}</p>" if note else "",
        _curves(rows, curves, directory) if curves else "",
        "<h2>Samples</h2><div class='jobs'>",
        *(_samples(row, directory) for row in rows),
        "</div></html>",
    ]
    return "\n".join(parts)


def _cells(row: Row) -> list[str]:
    value = "" if row.value is None else f"{row.value:.5g}"
    if row.standard_error is not None:
        value += f" ± {row.standard_error:.2g}"
    time = "" if row.seconds is None else f"{row.seconds / 60:.1f} min"
    return [str(row.number), row.words, row.status, value, time, row.path]


def _curves(rows: Sequence[Row], names: Sequence[str], directory: Path) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4), layout="constrained")
    axes = list(figure.subplots(1, len(names), squeeze=False).flat)
    for row in rows:
        file = directory / row.path / "metrics.csv"
        series = read_metrics(file) if file.is_file() else {}
        label = f"{row.number} {row.words}"[:60]
        for axis, name in zip(axes, names, strict=True):
            if name in series:
                steps, values = series[name]
                shown = smooth(values) if name == "train/loss" else values
                axis.plot(steps, shown, label=label, marker="." if len(steps) < 30 else None)
    if not any(axis.lines for axis in axes):
        return ""
    for axis, name in zip(axes, names, strict=True):
        title = f"{name}, over each job's own levels" if name == "val/error" else name
        axis.set(title=title, xlabel="step", yscale=scale_of(axis))
        label_plainly(axis)
    axes[0].legend(fontsize="small")
    mark_empty(axes)
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
