"""A sweep: Hydra's sweeper chooses jobs, its launcher runs them, and a table compares them.

Its directory is named by its words, so the same command finds it again: what is finished is kept,
the rest goes on.
"""

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.plots.sweep_page import Row, as_csv, as_html, as_markdown
from ddpm_lightning.run.checkpoint import read_yaml
from ddpm_lightning.run.cli import JobError, multirun
from ddpm_lightning.run.config import Node, check_options, resolved
from ddpm_lightning.run.directory import CLIPS, read_status, write_text
from ddpm_lightning.run.errors import RunFailed, UserError, user_errors
from ddpm_lightning.run.jobs import PLAN, digest, own_words, run_job
from ddpm_lightning.run.paste import hydra_word
from ddpm_lightning.run.ranking import check_metric, obstacles, rank
from ddpm_lightning.run.secrets import redacted
from ddpm_lightning.run.words import CONF, refuse_mistakes, root_of
from ddpm_lightning.training.signals import stopped_by_signals

_HOW = ("sweep.max_parallel", "sweep.metric", "hydra/launcher", "hydra.launcher")  # not what


def run_sweep(config_name: str, words: list[str]) -> None:
    """Have Hydra run the jobs that words make, and write sweep.md, .csv and .html.

    Raises:
        RunFailed: if a job failed.   Stopped: at SIGINT and SIGTERM, after the jobs have ended.
    """
    options = _options(config_name, words)
    metric = options["sweep"]["metric"]
    directory = Path(options["outputs_dir"], "sweeps", _name(words)).absolute()
    how = [hydra_word("hydra.sweep.dir", str(directory))]
    if not any(word.startswith("hydra/launcher=") for word in words):
        how.append("hydra/launcher=processes")
    code, rows = 0, list[Row]()
    try:
        with stopped_by_signals("the sweep was interrupted; the same command goes on with it"):
            multirun(partial(run_job, metric), config_name, [*words, *how])
    except JobError as e:
        code = e.code
    finally:
        if frozen := sorted(path.parent for path in directory.glob("*/composed.yaml")):
            rows = _report(frozen, metric, shlex.join(words))
    if failed := [row.number for row in rows if row.status != "finished"]:
        raise RunFailed(
            f"{len(failed)} of {len(rows)} jobs failed: {', '.join(map(str, failed))}; the same "
            "command tries them again"
        )
    if code:
        raise JobError(code)


def _options(config_name: str, words: list[str]) -> Node:
    """Return the configuration as far as it says how a sweep is run, and where.

    Raises:
        UserError: for words that no sweep takes.
    """
    refuse_mistakes(config_name, words)
    for word in words:
        if root_of(word) in ("resume", "ckpt_path"):
            raise UserError(
                f"{word}: -m begins new runs; the same sweep's command again goes on with its jobs"
            )
    how = [word for word in words if root_of(word) in ("sweep", "outputs_dir")]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        options = resolved(compose(config_name, overrides=how))
    check_options("sweep", options["sweep"])
    check_metric(f"sweep.metric={options['sweep']['metric']}")
    return options


def _name(words: list[str]) -> str:
    """Return a name by what is swept and a hash of all words that make the jobs."""
    made_by = [word for word in words if not word.startswith(_HOW)]
    overrides = OverridesParser.create().parse_overrides(made_by)
    swept = [re.split("[./]", o.key_or_group)[-1] for o in overrides if o.is_sweep_override()]
    return "-".join([*swept, digest(made_by)[:8]])[-80:]


def _report(jobs: list[Path], metric: str, title: str) -> list[Row]:
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
