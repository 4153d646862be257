"""Tables and figures of a study, all from its table of results."""

from collections.abc import Sequence
from math import exp
from pathlib import Path
from statistics import mean

from ddpm_lightning.evaluation.paired import Difference
from ddpm_lightning.plots.calls import CallsPanel, CallsPoint, save_calls
from ddpm_lightning.run.directory.start import write_text
from ddpm_lightning.study.analysis import (
    SPATIAL,
    TEMPORAL,
    Finding,
    agreement,
    by_seed,
    early_error,
    findings,
    last_error,
    less,
    memory,
    paired_difference,
)
from ddpm_lightning.study.figures import save_errors
from ddpm_lightning.study.plan import BASE, FROZEN
from ddpm_lightning.study.table import Table, Walk

NAMES = {SPATIAL: "spatial", TEMPORAL: "temporal"}


def write_report(table: Table, directory: Path) -> list[Path]:
    """Write tables.md and the figures that the table's rows suffice for, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "tables.md"
    write_text(path, tables(table))
    drawn = [path]
    if trainings := [row for row in table.trainings if row.clips != FROZEN]:
        drawn.append(save_errors(trainings, BASE, directory / "errors.png"))
    if panels := path_panels(table):
        drawn.append(save_calls(panels, "MMD^2, pixels", directory / "paths.png"))
    return drawn


def tables(table: Table) -> str:
    """Return the tables of a report, as Markdown."""
    parts = [
        ("Hypotheses", hypotheses(findings(table))),
        ("Parts of them", parts_of(findings(table))),
        ("Error by density", errors(table)),
        ("Distance by path", distances(table)),
        ("Memorisation", memorised(table)),
        ("What was left out", left_out(table)),
    ]
    return "\n".join(f"### {title}\n\n{text}\n" for title, text in parts if text)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def hypotheses(seen: Sequence[Finding]) -> str:
    rows = [
        [
            f"**{f.name}**",
            f.statement,
            _number(f.difference, f.name == "H1"),
            f"{f.p:.2g}",
            f"{f.adjusted:.2g}",
            _visible(f.difference, f.name == "H1"),
            str(f.difference.num_pairs) if f.difference else "0",
            f"**{f.verdict}**",
        ]
        for f in seen
    ]
    header = ("", "statement", "difference (95 %)", "p", "Holm", "visible", "seeds", "verdict")
    return markdown(header, rows)


def parts_of(seen: Sequence[Finding]) -> str:
    rows = [
        [f.name, name, _number(part), f"{part.p:.2g}", str(part.num_pairs)]
        for f in seen
        for name, part in f.more.items()
    ]
    return markdown(("", "part", "difference (95 %)", "p", "seeds"), rows) if rows else ""


def _number(seen: Difference | None, is_log: bool = False) -> str:
    if seen is None:
        return "-"
    if is_log:
        return f"{_percent(seen.mean)} ({_percent(seen.low)} to {_percent(seen.high)})"
    return f"{seen.mean:+.3g} ({seen.low:+.3g} to {seen.high:+.3g})"


def _visible(seen: Difference | None, is_log: bool) -> str:
    if seen is None:
        return "-"
    return _percent(seen.visible).lstrip("+") if is_log else f"{seen.visible:.2g}"


def _percent(log_ratio: float) -> str:
    return f"{100 * (exp(log_ratio) - 1):+.1f} %"


def errors(table: Table) -> str:
    """Return a row for each arm: its error early and at the end, and less cosine's."""
    rows = []
    kinds = dict.fromkeys((row.clips, row.loss, row.arm) for row in table.trainings)
    for clips, loss, arm in sorted(kinds, key=lambda kind: kind[:2]):
        cells = [clips, loss, arm]
        for value in (early_error, last_error):
            own, base = (
                by_seed(table.trainings, value, arm=a, loss=loss, clips=clips) for a in (arm, BASE)
            )
            against = paired_difference(less(own, base)) if arm != BASE else None
            cells += [f"{exp(mean(own.values())):.5f}", _number(against, is_log=True)]
        rows.append([*cells, str(len(own))])
    rows.sort(key=lambda cells: (cells[0] == FROZEN, cells[1] != "simple"))
    header = ("clips", "loss", "arm", "early", "to cosine", "at the end", "to cosine", "seeds")
    return markdown(header, rows)


def groups(table: Table, frozen: bool = False) -> dict[tuple[str, str], dict[int, list[Walk]]]:
    """Return walks on frozen clips, or on others, by (arm, path) and evaluations: one a seed."""
    result: dict[tuple[str, str], dict[int, list[Walk]]] = {}
    for walk in table.walks:
        if (walk.clips == FROZEN) == frozen:
            by_count = result.setdefault((walk.arm, walk.path), {})
            by_count.setdefault(walk.evaluations, []).append(walk)
    return result


def distances(table: Table) -> str:
    """Return a row for each network and path: distances at each number of evaluations."""
    grouped = groups(table)
    counts = sorted({n for by_count in grouped.values() for n in by_count})
    if not grouped:
        return ""
    rows = []
    for (arm, path), by_count in grouped.items():
        num = max(map(len, by_count.values()))
        rows.append([arm, path, *(_cell(by_count.get(n, [])) for n in counts), str(num)])
    walk = next(w for w in table.walks if w.clips != FROZEN)
    floor = ", ".join(f"{NAMES[name]} {walk.values[name][3]:.2f}" for name in NAMES)
    header = ("network", "path", *(f"{n} calls" for n in counts), "seeds")
    note = (
        "Spatial / temporal MMD^2 in pixels, and the probability that two frames agree on a digit"
    )
    return f"{markdown(header, rows)}\n\n{note}. Real against real: up to {floor}."


def _cell(walks: list[Walk]) -> str:
    if not walks:
        return ""
    values = " / ".join(f"{mean(w.values[name][0] for w in walks):.3g}" for name in NAMES)
    agreed = [share for share in map(agreement, walks) if share is not None]
    return f"{values}; {mean(agreed):.2f}" if agreed else values


def memorised(table: Table) -> str:
    """Return a row for each arm on frozen clips."""
    rows = [
        [arm, path, str(count), f"{mean(map(memory, walks)):.3f}", str(len(walks))]
        for (arm, path), by_count in groups(table, frozen=True).items()
        for count, walks in by_count.items()
    ]
    return markdown(("network", "path", "calls", "memorisation", "seeds"), rows) if rows else ""


def left_out(table: Table) -> str:
    """Return which planned runs there was no time for."""
    done = {"-".join((r.clips, r.arm, r.loss, str(r.seed))) for r in table.trainings}
    missing = [name for name in table.planned if name not in done]
    by_kind: dict[str, list[str]] = {}
    for name in missing:
        kind, _, seed = name.rpartition("-")
        by_kind.setdefault(kind, []).append(seed)
    return "\n".join(f"- {kind}: seeds {', '.join(seeds)}" for kind, seeds in by_kind.items())


def path_panels(table: Table) -> list[CallsPanel]:
    """Return a panel for each network and kind of distance, a curve for each path."""
    grouped = groups(table)
    panels = []
    for arm in dict.fromkeys(arm for arm, _ in grouped):
        own = {path: by_count for (a, path), by_count in grouped.items() if a == arm}
        if max(map(len, own.values())) < 2:
            continue
        for name, kind in NAMES.items():
            curves = {
                path: [_point(walks, name) for _, walks in sorted(by_count.items())]
                for path, by_count in own.items()
            }
            ends = next(iter(next(iter(own.values())).values()))[0].values[name][2:]
            panels.append(CallsPanel(f"{arm}'s network, {kind}", curves, ends))
    return panels


def _point(walks: list[Walk], name: str) -> CallsPoint:
    """Return the mean over seeds, and the least and greatest of them."""
    values = [walk.values[name][0] for walk in walks]
    return CallsPoint(walks[0].calls, mean(values), min(values), max(values))
