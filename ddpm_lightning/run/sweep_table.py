"""The table of a sweep's jobs: sweep.md, .csv and .html."""

from pathlib import Path
from typing import Any

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.plots.sweep_page import Row, as_csv, as_html, as_markdown
from ddpm_lightning.run.checkpoint import read_yaml
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.directory import CLIPS, read_status, write_text
from ddpm_lightning.run.errors import user_errors
from ddpm_lightning.run.jobs import PLAN, own_words
from ddpm_lightning.run.ranking import obstacles, rank
from ddpm_lightning.run.secrets import redacted


def write_table(jobs: list[Path], metric: str, title: str) -> list[Row]:
    """Write and print the table of jobs that are frozen, by their directories."""
    plans = [read_yaml(job / PLAN) for job in jobs]
    labels = own_words([plan.pop("words") for plan in plans])
    configs = [_comparable(*pair) for pair in zip(jobs, plans, strict=True)]
    scores, best, note = rank(metric, [job / "metrics.csv" for job in jobs], configs)
    rows = []
    for i, (job, label, score) in enumerate(zip(jobs, labels, scores, strict=True)):
        status = read_status(job)
        rows.append(
            Row(
                number=int(job.name.partition("_")[0]),
                words=label,
                status=status["status"],
                error=status.get("error") or "",
                value=score and score.value,
                standard_error=score and score.standard_error,
                is_best=i == best,
                seconds=status.get("seconds"),
                path=job.name,
            )
        )
    directory = jobs[0].parent
    table = as_markdown(rows, metric, note)
    curves = [
        name for name in dict.fromkeys(["train/loss", metric]) if not obstacles(name, configs)
    ]
    page = as_html(rows, metric, note, curves, directory, title)
    for suffix, text in {"md": table, "csv": as_csv(rows, metric), "html": page}.items():
        write_text(directory / f"sweep.{suffix}", redacted(text))
    print(f"\n{table}\n  page           {directory / 'sweep.html'}")
    finished = [directory / row.path for row in rows if row.status == "finished"]
    if finished and all(row.value is None for row in rows):
        names = read_metrics(finished[0] / "metrics.csv")
        logged = (name for name in names if name.startswith(("train/", "val/")))
        print(f"  no job has sweep.metric={metric}; choose {', '.join(logged)}")
    return rows


def _comparable(job: Path, plan: dict[str, Any]) -> Node:
    """Return a job's configuration, and which clips its errors are measured on, once it knows."""
    with user_errors(str(path := job / CLIPS)):
        return {**plan, "clips": read_json(path)} if path.exists() else plan
