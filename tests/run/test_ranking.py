"""Jobs of a sweep are ranked where their values can be compared, and only there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ddpm_lightning.run.sweeps.ranking import Ranking, rank, varied

CONFIG = {"noise": {"_target_": "cosine"}, "data": {"size": 16, "flip": False}, "seed": 0}


def ranked(
    folder: Path,
    tables: Sequence[str],
    name: str = "val/error",
    changes: Sequence[Mapping[str, Any]] = ({}, {}),
) -> Ranking:
    paths = []
    for i, table in enumerate(tables):
        paths.append(folder / f"{i}.csv")
        if table:
            paths[-1].write_text(table)
    return rank(name, paths, [{**CONFIG, **change} for change in changes])


def test_the_best_step_counts_and_what_is_not_finite_never_does(tmp_path: Path) -> None:
    tables = [
        "step,val/error,val/error_se\n1,nan,1\n2,0.5,0.02\n3,0.7,0.1\n4,-inf,0\n",
        "step\n1\n",
    ]
    ranking = ranked(tmp_path, tables)
    assert ranking.scores == [(0.5, 0.02), None]
    assert (ranking.best, ranking.note) == (0, "")


def test_more_clips_a_second_are_better(tmp_path: Path) -> None:
    tables = [f"step,train/clips_per_s\n1,{n}\n2,1\n" for n in (5, 7)]
    ranking = ranked(tmp_path, tables, "train/clips_per_s", [{}, {"data": {"size": 8}}])
    assert ([score and score.value for score in ranking.scores], ranking.best) == ([5, 7], 1)


@pytest.mark.parametrize(
    ("name", "change", "obstacle"),
    [
        ("val/loss", {"noise": {"_target_": "hybrid"}}, "across noise._target_"),
        ("train/loss", {"noise": {"_target_": "hybrid"}}, "across noise._target_"),
        ("val/error", {"data": {"size": 32, "flip": False}}, "across data.size"),
        ("val/error", {"clips": {"std": 0.4}}, "across clips.std"),
        ("val/quality_spatial", {"callbacks": {"quality": {"num_samples": 9}}}, "across callbacks"),
        ("val/other", {}, "whether less of val/other is better is not known"),
    ],
)
def test_what_cannot_be_compared_has_no_best_and_says_why(
    name: str, change: Mapping[str, Any], obstacle: str, tmp_path: Path
) -> None:
    tables = [f"step,{name}\n1,{value}\n" for value in (0.4, 0.2)]
    ranking = ranked(tmp_path, tables, name, [{}, change])
    assert [score and score.value for score in ranking.scores] == [0.4, 0.2]
    assert ranking.best is None
    assert obstacle in ranking.note


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("val/error", {"noise": {"_target_": "hybrid"}, "seed": 3}),
        ("val/error", {"data": {"size": 16, "flip": True}}),
        ("val/loss", {"seed": 3}),
    ],
)
def test_what_can_be_compared_has_a_best(
    name: str, change: Mapping[str, Any], tmp_path: Path
) -> None:
    tables = [f"step,{name}\n1,{value}\n" for value in (0.4, 0.2)]
    assert ranked(tmp_path, tables, name, [{}, change]).best == 1


def test_a_job_that_has_not_begun_is_no_obstacle(tmp_path: Path) -> None:
    """It has no clips yet, and no values, so nothing of it is compared."""
    tables = ["step,val/error\n1,0.4\n", "step,val/error\n1,0.2\n", ""]
    clips = {"clips": {"std": 0.4}}
    ranking = ranked(tmp_path, tables, changes=[clips, clips, {}])
    assert (ranking.best, ranking.note) == (1, "")


def test_the_error_is_averaged_over_the_levels_that_all_were_trained_at(tmp_path: Path) -> None:
    """The first job's own mean is lower, for it has a level more, at which errors are small."""
    at = "val_error_at/"
    tables = [
        f"step,val/error,{at}+00.00,{at}+00.75\n1,0.2,0.4,0.0\n2,0.3,0.5,0.1\n",
        f"step,val/error,{at}+00.00\n1,0.35,0.35\n",
        "step,train/loss\n1,0.1\n",  # failed before its first validation
        "",
    ]
    ranking = ranked(tmp_path, tables, changes=[{}, {}, {}, {}])
    assert [score and score.value for score in ranking.scores] == [0.4, 0.35, None, None]
    assert ranking.best == 1
    assert "mean over the 1 levels" in ranking.note


def test_jobs_without_a_level_in_common_are_not_compared(tmp_path: Path) -> None:
    tables = [f"step,val/error,val_error_at/{level}\n1,0.2,0.2\n" for level in ("+00.00", "+00.75")]
    ranking = ranked(tmp_path, tables)
    assert ranking.best is None
    assert "no level that all were trained at" in ranking.note


def test_who_is_near_the_best_is_named(tmp_path: Path) -> None:
    tables = [f"step,val/error,val/error_se\n1,{value},0.01\n" for value in (0.4, 0.39, 0.5)]
    ranking = ranked(tmp_path, tables, changes=[{}, {}, {}])
    assert ranking.best == 1
    assert ranking.note == "within two standard errors of the best: 0"


def test_keys_that_vary_are_those_of_leaves() -> None:
    assert varied([CONFIG, {**CONFIG, "data": {"size": 8}, "new": 1}]) == [
        *("data.flip", "data.size", "new"),
    ]
