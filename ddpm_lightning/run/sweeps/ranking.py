"""Ranks the jobs of a sweep by a metric, where its values can be compared across what they vary.

The loss that is trained cannot be compared between chains or schedules: one exact denoiser scores
0.357 on standard x hybrid and 0.500 on median x cosine. Such values are shown without a winner, and
why. `val/error` can: it is averaged over those levels of log-SNR that all jobs were trained at.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_lightning.evaluation.measure import EVERYTHING_BUT_DATA, LEARNING, OF_SAMPLES
from ddpm_lightning.plots.curves import BY_LEVEL, read_metrics
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.secrets import find_leaves

# Nodes of a configuration that say where a run lies and is shown.
PLACES = ("logger", "sweep", "run_name", "run_dir", "run_id", "run_group", "outputs_dir")
ERROR = "val/error"
_LOGGED = ("train/", "train_by_log_snr/", "grad_norm/", "val_by_log_snr/", BY_LEVEL)


class Metric(NamedTuple):
    """The direction of a metric, and the nodes that may differ between values that are compared."""

    less_is_better: bool
    comparable_across: tuple[str, ...]


METRICS = {
    ERROR: Metric(True, EVERYTHING_BUT_DATA),
    "val/loss": Metric(True, LEARNING),
    "train/loss": Metric(True, LEARNING),
    "val/quality_spatial": Metric(True, OF_SAMPLES),
    "val/quality_temporal": Metric(True, OF_SAMPLES),
    "train/clips_per_s": Metric(False, (*EVERYTHING_BUT_DATA, "data")),
}


def check_metric(word: str) -> None:
    """Raise UserError for KEY=NAME unless a run logs something of this name."""
    name = word.partition("=")[2]
    if name not in METRICS and not name.startswith(_LOGGED):
        raise UserError(f"{word}: no run logs that; choose {', '.join(METRICS)}")


class Score(NamedTuple):
    """A job's best value and its standard error over validation clips, if that is known."""

    value: float
    standard_error: float | None = None


class Ranking(NamedTuple):
    """Scores of the jobs; None for one without values.

    best: number of the best job; None where none may be called that.
    note: what a reader of the scores must know, or nothing.
    """

    scores: list[Score | None]
    best: int | None
    note: str


def rank(name: str, metrics: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> Ranking:
    """Rank jobs by a metric.

    Args:
        metrics: metrics.csv of each job, which need not exist.
        configs: their configurations, interpolations unresolved.
    """
    series = list(map(read_metrics, metrics))
    metric = METRICS.get(name)
    less = metric is None or metric.less_is_better
    columns, note = [name], ""
    if name == ERROR and any(levels := [_levels(of_job) for of_job in series]):
        columns = common_levels(series)
        if not columns:
            none: list[Score | None] = [None] * len(series)
            return Ranking(none, None, "no best: there is no level that all were trained at")
        if len(columns) < max(map(len, levels)):
            note = f"mean over the {len(columns)} levels of log-SNR that all jobs were trained at"
    scores = [_score(of_job, columns, less, f"{name}_se") for of_job in series]
    measured = {i: score for i, score in enumerate(scores) if score is not None}
    if metric is None:
        return Ranking(scores, None, f"no best: whether less of {name} is better is not known")
    if not measured:
        return Ranking(scores, None, note)
    if keys := obstacles(name, [configs[i] for i in measured]):
        shown = ", ".join(keys[:3]) + (" .." if len(keys) > 3 else "")
        return Ranking(scores, None, f"no best: {name} cannot be compared across {shown}")
    sign = 1 if less else -1
    best = min(measured, key=lambda i: sign * measured[i].value)
    if near := [i for i in measured if i != best and _is_near(measured[i], measured[best])]:
        jobs = ", ".join(map(str, near))
        note = "; ".join(filter(None, [note, f"within two standard errors of the best: {jobs}"]))
    return Ranking(scores, best, note)


def obstacles(name: str, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which configurations differ that forbid to compare this metric."""
    metric = METRICS.get(name)
    allowed = (*PLACES, *(metric.comparable_across if metric else ()))
    return [k for k in varied(configs) if not f"{k}.".startswith(tuple(f"{n}." for n in allowed))]


def common_levels(series: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the levels that every job with values was trained at."""
    measured = [names for names in map(_levels, series) if names]  # others failed before
    return sorted(set.intersection(*measured)) if measured else []


def _levels(of_job: Mapping[str, Any]) -> set[str]:
    return {name for name in of_job if name.startswith(BY_LEVEL)}


def varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which configurations differ."""
    first, *others = [dict(find_leaves(config)) for config in configs]
    return sorted({k for o in others for k in first.keys() | o.keys() if first.get(k) != o.get(k)})


def _score(
    of_job: Mapping[str, tuple[list[float], list[float]]], columns: list[str], less: bool, se: str
) -> Score | None:
    """Return the best finite mean of columns at a step, with the standard error there."""
    if not set(columns) <= of_job.keys():
        return None
    at_step = [dict(zip(*of_job[column], strict=True)) for column in columns]
    steps = set.intersection(*map(set, at_step))
    means = {s: sum(values[s] for values in at_step) / len(at_step) for s in steps}
    finite = [step for step, mean in means.items() if math.isfinite(mean)]
    if not finite:
        return None
    step = (min if less else max)(finite, key=lambda s: means[s])
    error = dict(zip(*of_job.get(se, ((), ())), strict=True)).get(step, math.nan)
    return Score(means[step], error if math.isfinite(error) else None)


def _is_near(score: Score, best: Score) -> bool:
    errors = [e for e in (score.standard_error, best.standard_error) if e is not None]
    return abs(score.value - best.value) < 2 * math.hypot(*errors) if errors else False
