"""The table of a study's results: small, committed, and all that its tables and curves need."""

import json
import platform
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.plots.curves import BY_LEVEL, read_metrics
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.directory.checkpoint import FORM_KEYS, read_config
from ddpm_lightning.run.directory.start import read_status, write_text
from ddpm_lightning.run.exchange.json_file import parsed, read_object
from ddpm_lightning.run.sweeps.ranking import ERROR
from ddpm_lightning.study.plan import Cell
from ddpm_lightning.study.sampling import path_of, walks
from ddpm_lightning.study.training import run_of

HOW = ("data", "minutes", "train", "max_parallel")  # options that say how, not what
_MAX_BYTES = 2**23
_PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


class Row(BaseModel):
    """What the rows of both tables have: a run, by its arm, loss, clips and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    loss: str
    clips: str
    seed: int


class Training(Row):
    """A run.

    error: val/error at each of steps, as logged.
    by_level: log-SNR -> the errors there, of five digits; of levels that it was trained at.
    """

    steps: list[int]
    error: list[float]
    by_level: dict[str, list[float]]
    seconds: float


class Walk(Row):
    """Samples. values: name -> value, standard error over clips, the ends of real against real."""

    chain: str
    sampler: str
    grid: str | None
    evaluations: int
    calls: int
    values: dict[str, tuple[float, float, float, float]]

    @property
    def path(self) -> str:
        """Return the name of what walks: sampler, chain, grid."""
        return f"{self.sampler}, {self.chain}" + (f", {self.grid} grid" if self.grid else "")


class Table(BaseModel):
    """All results.

    made_by: revisions, packages, machine.   options: of the study.   planned: names of its cells.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    made_by: dict[str, Any]
    options: dict[str, Any]
    planned: list[str]
    trainings: list[Training]
    walks: list[Walk]


def collect(cells: list[Cell], trained: list[Cell], options: Node, directory: Path) -> Table:
    """Return the table of what is finished, one cell at least."""
    drawn = [walk for walk in walks(trained, options) if path_of(walk, directory).exists()]
    return Table(
        made_by=_made_by(directory, trained),
        options={key: value for key, value in options.items() if key not in HOW},
        planned=[cell.name for cell in cells],
        trainings=[training_row(cell, run_of(cell, directory)) for cell in trained],
        walks=[
            Walk(
                **walk.cell._asdict(),
                **{k: v for k, v in walk._asdict().items() if k != "cell"},
                **_numbers(read_json(path_of(walk, directory))),
            )
            for walk in drawn
        ],
    )


def training_row(cell: Cell, run: Path) -> Training:
    """Return the row of a run from its metrics.csv."""
    series = read_metrics(run / "metrics.csv")
    steps, errors = series[ERROR]
    return Training(
        **cell._asdict(),
        steps=[int(step) + 1 for step in steps],  # logged with the number of the last batch
        error=errors,
        by_level={
            name.removeprefix(BY_LEVEL): [float(f"{value:.5g}") for value in values]
            for name, (_, values) in sorted(series.items())
            if name.startswith(BY_LEVEL)
        },
        seconds=round(float(read_status(run)["seconds"]), 1),
    )


def _numbers(cards: list[Node]) -> Node:
    """Return the numbers of a walk's cards, as a Walk has them."""
    values = {}
    for card in cards:
        extractor = (card["extractor"] or {}).get("name")
        is_quality = card["name"].startswith("quality")
        name = f"{card['name']}/{extractor}" if is_quality else card["name"]
        ends = card["floor"] or {"low": card["value"], "high": card["value"]}
        numbers = (card["value"], card["standard_error"], ends["low"], ends["high"])
        values[name] = [float(f"{number:.5g}") for number in numbers]
    return {"calls": cards[0]["samples"]["network_calls"], "values": values}


def _made_by(directory: Path, trained: list[Cell]) -> Node:
    """Return which code and machine made the results, as the last start of each run recorded."""
    recorded = (sorted((run_of(c, directory) / "starts").glob("*.json"))[-1] for c in trained)
    starts = [read_json(path) for path in recorded]
    here = starts[0]
    return {
        "trained_by": sorted({str((start["git"] or {}).get("revision")) for start in starts}),
        "packages": {name: here["packages"].get(name) for name in _PACKAGES},
        "python": here["python"],
        "platform": here["platform"],
        "machine": platform.machine(),
        "num_threads": torch.get_num_threads(),
        "clips": {c.clips: _clips(run_of(c, directory)) for c in reversed(trained)},
    }


def _clips(run: Path) -> Node:
    """Return which clips errors were measured on, and the form of them."""
    data = read_config(run)["data"]
    form = {key: data[key] for key in FORM_KEYS}
    return {**form, "held_out_sha256": read_json(run / "clips.json")["held_out_sha256"]}


def write_table(table: Table, path: Path) -> None:
    """Write a table as JSON, a row a line."""
    lines = []
    for key, value in table.model_dump().items():
        rows = ",\n".join(map(json.dumps, value)) if key in ("trainings", "walks") else ""
        lines.append(f'"{key}": [\n{rows}\n]' if rows else f'"{key}": {json.dumps(value)}')
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_table(path: Path) -> Table:
    """Return a table; UserError for a file that is none, or is one of another version."""
    return parsed(Table, read_object(path, _MAX_BYTES), path)
